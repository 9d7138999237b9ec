/**
 * Which conversation is shown. The address names it after `#`; without that, it is the one that was used last.
 *
 * A conversation that is left while a reply is running goes on being read, so that the server finishes it.
 */

export class Conversations {
  current = null; // Chat
  running = new Map(); // by id: chats that are not shown and have a running reply

  /** @param makeChat returns the chat of an Api */
  constructor(api, makeChat) {
    Object.assign(this, { api, makeChat });
    window.addEventListener("popstate", () => this.#follow());
  }

  /** @param {Sidebar} sidebar whose list is there, if the site has lists */
  start(sidebar) {
    this.sidebar = sidebar;
    const id = idInAddress() ?? latestOf(sidebar.entries ?? [])?.id;
    this.#show(this.makeChat(id && sidebar.hasLists ? this.api.of(id) : this.api));
  }

  open(conversationId) {
    if (this.current.id === conversationId) return this.current.composer.takeFocus();
    setAddress(conversationId);
    this.#open(conversationId);
    this.current.composer.takeFocus();
  }

  startNew() {
    if (!this.current.isEmpty || this.current.running) {
      setAddress(null);
      this.#openNew();
    }
    this.current.composer.takeFocus();
  }

  /** A conversation was deleted. */
  removed(conversationId) {
    this.running.get(conversationId)?.leave();
    this.running.delete(conversationId);
    const left = this.current;
    if (left.id !== conversationId) return;
    left.leave();
    setAddress(null);
    this.#openNew();
    this.current.composer.offer(left.unsent.at(-1) ?? "");
  }

  /** A turn of a conversation has ended, or it has got its id with its first message. */
  async changed(chat) {
    if (!chat.running) this.running.delete(chat.id);
    if (!this.sidebar.hasLists) return;
    if (chat.id === null && !chat.running) await chat.catchUp().catch(() => {}); // its id is known now
    if (chat === this.current) {
      if (chat.hasBegunHere) setAddress(chat.id, "replaceState");
      this.sidebar.current = chat.id;
    }
    await this.sidebar.refresh();
  }

  #follow() {
    const id = idInAddress();
    if (id === null) this.#openNew();
    else if (id !== this.current.id) this.#open(id);
  }

  #open(conversationId) {
    this.#show(this.running.get(conversationId) ?? this.makeChat(this.api.of(conversationId)));
  }

  #openNew() {
    const isFirst = this.sidebar.entries?.length === 0 && this.current.isEmpty && !this.current.running;
    this.#show(this.makeChat(isFirst ? this.api.of(null) : this.api.ofNew()));
  }

  #show(chat) {
    const left = this.current;
    if (left === chat) return;
    left?.hide();
    if (left?.running && left.id !== null) this.running.set(left.id, left);
    this.current = chat;
    chat.show();
    this.sidebar.current = chat.id;
  }
}

/** Return the conversation that was used last; in the list, pinned ones stand before it. */
export function latestOf(entries) {
  const newest = Math.max(...entries.map((entry) => entry.updated_at));
  return entries.find((entry) => entry.updated_at === newest);
}

function idInAddress() {
  return decodeURIComponent(location.hash.slice(1)) || null;
}

function setAddress(conversationId, how = "pushState") {
  const address = conversationId === null ? location.pathname + location.search : `#${conversationId}`;
  if (conversationId !== idInAddress()) history[how](null, "", address);
}
