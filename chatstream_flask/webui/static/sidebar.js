/** The list of conversations: search, rename, pin, save, delete, import. On small screens it is a drawer. */

import { Refused } from "./api.js";
import { element, icon } from "./element.js";
import { explain } from "./explanation.js";
import { word } from "./i18n.js";
import { isCancelKey } from "./text_field.js";

const AT_ONCE = 50; // entries
const SEARCH_PAUSE_MS = 200;
const MAX_TITLE_LEN = 200;
const KEY = "chatstream.sidebar";
const IS_DRAWER = window.matchMedia("(max-width: 56rem)");

export class Sidebar {
  entries = null; // null until the server has sent them; it has no lists if they stay null
  limit = AT_ONCE;
  currentId = null;
  expandedId = null; // entry whose buttons are shown
  editedId = null; // entry that is being renamed
  numRequests = 0;

  /** @param acts `open(id)`, `startNew()`, `removed(id)` */
  constructor(parts, api, acts, storage) {
    Object.assign(this, { parts, api, acts, storage });
    const { openButton, closeButton, newButton, shade, search, moreButton, importButton, file } = parts;
    openButton.addEventListener("click", () => this.toggle());
    closeButton.addEventListener("click", () => this.toggle());
    shade.addEventListener("click", () => this.toggle());
    newButton.addEventListener("click", () => this.#leave(() => acts.startNew()));
    search.addEventListener("input", () => this.#searchSoon());
    moreButton.addEventListener("click", () => this.#showMore());
    importButton.addEventListener("click", () => file.click());
    file.addEventListener("change", () => this.#try(() => this.#import()));
    parts.sidebar.addEventListener("keydown", (event) => this.#onKey(event));
    parts.deleteCancel.addEventListener("click", () => parts.deleteDialog.close());
    parts.deleteConfirm.addEventListener("click", () => this.#try(() => this.#delete()));
    IS_DRAWER.addEventListener("change", () => this.#setOpen(this.#wasOpen));
  }

  get hasLists() {
    return this.entries !== null;
  }

  get isOpen() {
    return !this.parts.sidebar.hidden;
  }

  /** Show the list of the server; a site without lists has no sidebar. */
  async refresh() {
    const number = ++this.numRequests;
    try {
      const { conversations, has_more: hasMore } = await this.api.list(this.parts.search.value.trim(), this.limit);
      if (number !== this.numRequests) return;
      const isFirst = !this.hasLists;
      this.entries = conversations;
      this.parts.moreButton.hidden = !hasMore;
      if (isFirst) this.#setOpen(this.#wasOpen && conversations.length > 0);
      this.#draw();
    } catch (error) {
      if (error instanceof Refused && error.status !== 404) this.#tell(error);
    }
  }

  set current(conversationId) {
    this.currentId = conversationId;
    if (this.hasLists) this.#draw();
  }

  toggle() {
    if (!this.hasLists) return;
    this.#setOpen(!this.isOpen);
    if (!IS_DRAWER.matches) this.storage.setItem(KEY, this.isOpen ? "open" : "closed");
    const { newButton, search, openButton } = this.parts;
    if (!this.isOpen) openButton.focus();
    else (IS_DRAWER.matches ? newButton : search).focus(); // the keyboard of a phone would cover the list
  }

  startSearch() {
    if (!this.hasLists) return;
    this.#setOpen(true);
    this.parts.search.select();
  }

  /** Return the entry before (-1) or after (1) the current one. */
  neighbour(step) {
    const at = this.entries?.findIndex((entry) => entry.id === this.currentId) ?? -1;
    return at < 0 ? null : this.entries[at + step] ?? null;
  }

  // ---------------------------------------------------------------------------------------------------------

  get #wasOpen() {
    return !IS_DRAWER.matches && this.storage.getItem(KEY) !== "closed";
  }

  #setOpen(isOpen) {
    const { sidebar, shade, openButton, headNewButton } = this.parts;
    if (!this.hasLists) return;
    sidebar.hidden = !isOpen;
    shade.hidden = !isOpen || !IS_DRAWER.matches;
    openButton.hidden = headNewButton.hidden = isOpen && !IS_DRAWER.matches;
    openButton.setAttribute("aria-expanded", isOpen);
    for (const covered of document.querySelectorAll("body > :is(header, main, footer)")) {
      covered.inert = isOpen && IS_DRAWER.matches;
    }
  }

  /** Go to a conversation; the drawer is in the way then. */
  #leave(act) {
    if (IS_DRAWER.matches) this.#setOpen(false);
    act();
  }

  #onKey(event) {
    if (!isCancelKey(event) || document.querySelector("dialog[open]")) return;
    if (this.editedId !== null) this.#edit(null);
    else if (this.parts.search.value) return; // the browser empties the field
    else if (IS_DRAWER.matches) this.toggle();
    event.stopPropagation();
  }

  #searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), SEARCH_PAUSE_MS);
  }

  #showMore() {
    this.limit += AT_ONCE;
    this.refresh();
  }

  // -- entries ----------------------------------------------------------------------------------------------

  #draw() {
    const { list, none, search } = this.parts;
    const focused = document.activeElement?.dataset.key;
    list.replaceChildren(...this.entries.map((entry) => this.#entry(entry)));
    none.hidden = this.entries.length > 0 || !search.value.trim();
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #entry(entry) {
    const title = entry.title || word("new_conversation");
    const isExpanded = entry.id === this.expandedId;
    if (entry.id === this.editedId) return element("li", {}, this.#titleField(entry));
    const link = element(
      "a",
      {
        href: `#${entry.id}`,
        title,
        class: "sidebar-entry",
        "data-key": `${entry.id} open`,
        "aria-current": entry.id === this.currentId && "page",
        onclick: (event) => this.#onClick(event, entry.id),
      },
      entry.is_pinned ? icon("pin") : null,
      entry.is_pinned ? element("span", { class: "visually-hidden" }, `${word("pinned")} `) : null,
      element("span", { class: "sidebar-title" }, title),
    );
    const more = element(
      "button",
      {
        type: "button",
        class: "icon-button",
        "aria-label": word("more_acts", { title }),
        "aria-expanded": String(isExpanded),
        "data-key": `${entry.id} more`,
        onclick: () => this.#expand(isExpanded ? null : entry.id),
      },
      icon("more"),
    );
    return element("li", {}, element("div", { class: "sidebar-row" }, link, more), isExpanded ? this.#acts(entry) : null);
  }

  #acts(entry) {
    const button = (key, picture, act) =>
      element(
        "button",
        { type: "button", class: "sidebar-act", "data-key": `${entry.id} ${picture}`, onclick: act },
        icon(picture),
        word(key),
      );
    const file = (key, kind) =>
      element(
        "a",
        {
          class: "sidebar-act",
          href: `conversations/${encodeURIComponent(entry.id)}/export.${kind}`,
          download: `${entry.title.slice(0, 60) || "chat"}.${kind}`,
          "data-key": `${entry.id} ${kind}`,
        },
        icon("save"),
        word(key),
      );
    return element(
      "div",
      { class: "sidebar-acts" },
      button(entry.is_pinned ? "unpin" : "pin", "pin", () => this.#change(entry, { is_pinned: !entry.is_pinned })),
      button("rename", "pencil", () => this.#edit(entry.id)),
      file("export_markdown", "md"),
      file("export_json", "json"),
      button("delete", "delete", () => this.#askToDelete(entry)),
    );
  }

  #titleField(entry) {
    const field = element("input", {
      class: "sidebar-search",
      value: entry.title,
      maxlength: MAX_TITLE_LEN,
      "aria-label": word("rename_label"),
    });
    const save = () => {
      const title = field.value.trim();
      this.#edit(null);
      if (title && title !== entry.title) this.#change(entry, { title });
    };
    field.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && save());
    field.addEventListener("blur", () => this.editedId === entry.id && save());
    return field;
  }

  #onClick(event, conversationId) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
    event.preventDefault();
    this.#leave(() => this.acts.open(conversationId));
  }

  #expand(conversationId) {
    this.expandedId = conversationId;
    this.#draw();
  }

  #edit(conversationId) {
    this.editedId = conversationId;
    this.#draw();
    this.parts.list.querySelector("input")?.select();
  }

  #change(entry, changed) {
    return this.#try(async () => {
      this.expandedId = null;
      await this.api.change(entry.id, changed);
    });
  }

  #askToDelete(entry) {
    const { deleteDialog, deleteText, deleteCancel } = this.parts;
    this.deletedId = entry.id;
    deleteText.textContent = entry.title || word("new_conversation");
    deleteDialog.showModal();
    deleteCancel.focus(); // so that Enter deletes nothing
  }

  async #delete() {
    this.parts.deleteDialog.close();
    this.expandedId = null;
    await this.api.delete(this.deletedId);
    this.acts.removed(this.deletedId);
  }

  async #import() {
    const { file } = this.parts;
    const [chosen] = file.files;
    if (!chosen) return;
    const text = await chosen.text();
    file.value = "";
    const { id } = await this.api.create(parsed(text));
    this.#leave(() => this.acts.open(id));
  }

  /** Do something and show the list as it is then; it is also out of date if another tab was quicker. */
  async #try(work) {
    this.parts.problem.hidden = true;
    try {
      await work();
    } catch (error) {
      this.#tell(error);
    }
    await this.refresh();
  }

  #tell(error) {
    const { problem } = this.parts;
    problem.textContent = error instanceof SyntaxError || error.status === 400 ? word("import_failed") : explain(error);
    problem.hidden = false;
  }
}

/** Return the conversation of a saved file; throws SyntaxError for another file. */
function parsed(text) {
  const saved = JSON.parse(text);
  if (!Array.isArray(saved?.messages)) throw new SyntaxError("no messages");
  return saved;
}
