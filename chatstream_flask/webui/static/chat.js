/**
 * The conversation: questions, the running reply, and keeping the page in sync with the server.
 *
 * The server's state is authoritative. After any failure `catchUp` shows it again; only questions that the
 * server has not accepted exist here alone, until they are sent again or discarded.
 */

import { Refused, Unreachable } from "./api.js";
import { explain } from "./explanation.js";
import { word } from "./i18n.js";
import { ReplyReader } from "./reply_reader.js";
import { pauseBefore } from "./retry.js";
import { Turn } from "./turn.js";

const WHOLE = ["stop", "length"]; // finish reasons

const NO_COMPOSER = { running: false, offer() {}, fill() {}, takeFocus() {} }; // of a chat that is not shown

export class Chat {
  turns = [];
  isBehind = false; // the server has a newer state, which was not shown while a reply was being read
  numChanges = 0; // changes made here; an answer requested before the last one is outdated
  running = null; // {turn, restore, abort, messageId, isStopped}

  composer = NO_COMPOSER;
  hasBegunHere = false; // the first message was sent from this page

  /**
   * @param feedback null if feedback is turned off
   * @param watcher `onChange(chat)`, when a turn has ended or the first one has begun, and `onGone(chat)`, when
   *   the server does not know the conversation
   */
  constructor({ api, view, composer, connection, feedback, watcher }) {
    Object.assign(this, { api, view, connection, feedback, watcher, shownComposer: composer });
    this.acts = {
      edit: (turn, text) => this.edit(turn, text),
      regenerate: (turn) => this.regenerate(turn),
      answerNow: (turn) => this.#answerNow(turn),
      confirmStep: (turn, stepId, confirm) => this.api.confirmStep(turn.id, stepId, confirm).catch(() => {}),
      like: feedback && ((turn, isLike) => this.#like(turn, isLike)),
    };
  }

  /** The id in the list of conversations; null: it is not in the list yet. */
  get id() {
    return this.api.conversationId;
  }

  show() {
    this.composer = this.shownComposer;
    this.composer.running = Boolean(this.running);
    this.view.show();
  }

  /** Let another chat have the page; a running reply goes on being read. */
  hide() {
    this.view.hide();
    this.composer = NO_COMPOSER;
  }

  /** Stop reading. */
  leave() {
    this.running?.abort.abort();
  }

  get isEmpty() {
    return this.turns.length === 0;
  }

  // -- actions of the user ------------------------------------------------------------------------------

  send(text) {
    const turn = this.#append(new Turn(text, this.acts));
    this.#ask(turn, { user_input: text }, () => {});
  }

  /** Ask again from an earlier turn on; the later turns come back if the request is refused. */
  edit(turn, text) {
    const cut = this.turns.splice(this.turns.indexOf(turn));
    for (const gone of cut) this.view.remove(gone);
    const edited = this.#append(new Turn(text, this.acts));
    edited.editedTurn = turn;
    this.#ask(edited, { user_input: text, edited_message_id: turn.id }, () => {
      this.#remove(edited);
      for (const back of [...cut, edited]) this.#append(back);
    });
  }

  regenerate(turn) {
    const { reply, id, isInterrupted } = turn;
    this.#ask(turn, { regenerate: true }, () => {
      turn.putReply(reply);
      Object.assign(turn, { id, isInterrupted });
    });
  }

  /** Stop the reply and keep its text; the second time also stop waiting for a server that does not answer. */
  stop() {
    const { running } = this;
    if (!running) return;
    if (running.messageId) this.#cancel(running);
    else if (running.isStopped) running.abort.abort();
    running.isStopped = true;
  }

  async startNew() {
    this.running?.abort.abort();
    for (const turn of [...this.turns]) this.#remove(turn);
    try {
      await this.api.clear();
    } finally {
      this.numChanges++;
      await this.catchUp();
    }
  }

  /** Store the questions that the server has not accepted, so that they survive a reload. */
  get unsent() {
    return this.turns.filter((turn) => turn.isFailed).map((turn) => turn.text);
  }

  restoreUnsent(texts) {
    for (const text of texts) this.#showUnsent(this.#append(new Turn(text, this.acts)), word("error_unsent"));
  }

  get asMarkdown() {
    return this.turns.map((turn) => turn.asMarkdown).join("\n\n");
  }

  // -- one reply ---------------------------------------------------------------------------------------

  /** @param restore restores the former state, if the question is not accepted */
  async #ask(turn, body, restore) {
    const running = this.#begin(turn, restore);
    this.composer.takeFocus(); // the button that was pressed may be gone
    await this.#finally(running, async () => {
      this.hasBegunHere ||= this.api.isNew;
      const stream = await this.api.ask(body, running.abort.signal);
      if (this.hasBegunHere) this.watcher.onChange(this);
      await this.#read(running, stream.messageId, stream);
    });
  }

  /** Join a running reply that another page, or this one before a reload, has asked for. */
  async #attach({ message_id: messageId, user_input: text }) {
    const turn = this.#append(new Turn(text, this.acts));
    const running = this.#begin(turn, () => this.#remove(turn));
    await this.#finally(running, () => this.#read(running, messageId, null));
  }

  #begin(turn, restore) {
    const running = { turn, restore, abort: new AbortController(), messageId: null, isStopped: false };
    this.running = running;
    this.numChanges++;
    turn.beginReply();
    this.composer.running = true;
    this.#showActs();
    this.view.follow();
    return running;
  }

  async #finally(running, work) {
    let isUnknown = false;
    try {
      await work();
    } catch (error) {
      isUnknown = this.#onError(running, error);
    } finally {
      this.connection.back();
      if (this.running === running) {
        this.running = null;
        this.composer.running = false;
        this.#showActs();
      }
    }
    if (isUnknown || this.isBehind) await this.catchUp();
    this.watcher.onChange(this);
  }

  async #read(running, messageId, stream) {
    const { turn } = running;
    running.messageId = turn.id = messageId;
    if (running.isStopped) this.#cancel(running);
    const reader = new ReplyReader(this.api, messageId, this.#listener(running), running.abort.signal);
    const event = await reader.read(stream);
    if (event.name === "gone") throw new Lost();
    if (event.name === "error") this.#fault(running, event.data);
    else this.#end(running, event.data);
  }

  #listener(running) {
    const { reply } = running.turn;
    return {
      onQueue: (place) => reply.showQueue(place),
      onStart: () => reply.showStart(),
      onSources: (sources) => reply.showSources(sources),
      onStep: (step) => reply.showStep(step),
      onReasoning: (text) => reply.pushReasoning(text),
      onText: (text) => reply.push(text),
      onLost: this.connection.lost,
      onBack: () => {
        this.connection.back();
        if (running.isStopped) this.#cancel(running);
      },
    };
  }

  #end(running, done) {
    const { turn } = running;
    const isWhole = WHOLE.includes(done.finish_reason);
    if (!isWhole && !turn.reply.hasContent) return this.#fail(running, word("error_stopped"));
    turn.isInterrupted = !isWhole;
    turn.reply.finish(done);
  }

  /** An error in mid-reply; of what the app has refused, the server keeps the part before. */
  #fault(running, { code, message }) {
    const { turn } = running;
    if (code !== "refused") return this.#fail(running, word("error_failed"));
    if (!turn.reply.hasContent) return this.#fail(running, message);
    turn.isInterrupted = true;
    turn.reply.finish({ finish_reason: "cancelled" });
    turn.showFailure(message, []);
  }

  /** True if only the server knows the outcome of the request. */
  #onError(running, error) {
    if (running.abort.signal.aborted) {
      if (running.isStopped) this.#fail(running, word("error_stopped"));
      return running.isStopped;
    }
    if (error instanceof Lost) this.#fail(running, word("error_lost"));
    else if (error.status === 404 && this.id !== null) this.#fail(running, word("error_gone"), error);
    else if (error instanceof Refused || error instanceof Unreachable) this.#fail(running, explain(error), error);
    else throw error;
    running.turn.isPerhapsTaken = error instanceof Unreachable;
    return !(error instanceof Refused);
  }

  #fail(running, reason, error) {
    const { turn, restore } = running;
    turn.putReply(null);
    restore();
    if (turn.reply) return turn.showFailure(reason, [{ key: "regenerate", act: () => this.regenerate(turn) }]);
    if (!turn.element.isConnected) this.#append(turn);
    this.#showUnsent(turn, reason, error);
    this.view.follow();
  }

  #showUnsent(turn, reason, error) {
    turn.isFailed = true;
    const ways = [
      { key: "send_again", act: () => this.#sendAgain(turn) },
      { key: "edit", act: () => this.#takeBack(turn) },
      { key: "discard", act: () => this.#discard(turn) },
    ];
    if (error?.code === "conversation_busy") ways.unshift({ key: "watch", act: () => this.catchUp() });
    turn.showFailure(reason, ways);
  }

  #sendAgain(turn) {
    if (this.running) return;
    this.#remove(turn);
    if (this.turns.includes(turn.editedTurn)) this.edit(turn.editedTurn, turn.text);
    else this.send(turn.text);
  }

  #takeBack(turn) {
    this.#remove(turn);
    this.composer.fill(turn.text);
  }

  #discard(turn) {
    this.#remove(turn);
    this.composer.takeFocus();
  }

  /** Cancel the reply; if the connection is lost, try again when it is back. */
  async #cancel(running) {
    await this.api.cancel(running.messageId).catch(() => {});
  }

  /** End the reasoning; if the connection is lost, it goes on. */
  async #answerNow(turn) {
    await this.api.answerNow(turn.id).catch(() => {});
  }

  async #like(turn, isLike) {
    try {
      await this.feedback.set(this.api, turn.id, isLike);
      turn.reply.isLiked = isLike;
      turn.clearFailure();
    } catch (error) {
      turn.showFailure(explain(error), []);
    }
  }

  // -- the state of the server ----------------------------------------------------------------------------

  /** Show the state of the server as soon as it can be reached; does nothing while a reply is read here. */
  catchUp() {
    this.catching ??= this.#catchUp().finally(() => (this.catching = null));
    return this.catching;
  }

  async #catchUp() {
    for (let failures = 0; !this.running; ) {
      const { numChanges } = this;
      try {
        const conversation = await this.api.conversation();
        this.connection.back();
        this.isBehind = numChanges !== this.numChanges;
        if (this.isBehind) continue;
        this.#show(conversation);
        return;
      } catch (error) {
        const isAway = error instanceof Unreachable || error.status >= 500 || error.status === 429;
        if (error.status === 404 && this.id !== null) return this.watcher.onGone(this);
        if (error.status === 404) return; // the site may not have this part of the API
        if (!isAway) throw error;
      }
      await pauseBefore(++failures, this.connection.lost);
    }
  }

  #show({ messages, running }) {
    const wanted = pairs(running ? messages.slice(0, running.num_kept) : messages);
    const failed = this.turns.filter((turn) => turn.isFailed);
    const shown = this.turns.filter((turn) => !turn.isFailed);
    let same = 0;
    while (same < shown.length && same < wanted.length && isSame(shown[same], wanted[same])) same++;
    if (same === shown.length && same === wanted.length && !running) return;
    for (const turn of [...shown.slice(same), ...failed]) this.#remove(turn);
    for (const { text, reply } of wanted.slice(same)) this.#appendKept(text, reply);
    const taken = wanted.slice(same).map(({ text, reply }) => ({ text, id: reply?.message_id }));
    if (running) taken.push({ text: running.user_input, id: running.message_id });
    const isTaken = (turn) =>
      taken.some(({ text, id }) => (id && id === turn.id) || (turn.isPerhapsTaken && text === turn.text));
    if (running) this.#attach(running);
    for (const turn of failed.filter((each) => !isTaken(each))) this.#append(turn);
    this.#showActs();
    this.view.follow();
  }

  #appendKept(text, reply) {
    const turn = this.#append(new Turn(text, this.acts));
    if (!reply) return;
    turn.showKept(reply);
    if (this.feedback) turn.reply.isLiked = this.feedback.get(turn.id);
  }

  #append(turn) {
    this.turns.push(turn);
    this.view.add(turn);
    return turn;
  }

  #remove(turn) {
    if (turn.question.draft !== null) this.composer.offer(turn.question.draft);
    this.turns = this.turns.filter((other) => other !== turn);
    this.view.remove(turn);
  }

  #showActs() {
    const last = this.turns.findLast((turn) => !turn.isFailed);
    for (const turn of this.turns) {
      turn.question.canEdit = !this.running && turn.id !== null && !turn.isFailed;
      if (turn.reply) turn.reply.canRegenerate = !this.running && turn === last;
    }
  }
}

/** The server no longer has a reply that was being read. */
class Lost extends Error {}

/** Group messages into questions with their replies. */
function pairs(messages) {
  const made = [];
  for (const message of messages) {
    if (message.role === "requester") made.push({ text: message.text, reply: null });
    else if (made.length) made.at(-1).reply = message;
  }
  return made;
}

function isSame(turn, { text, reply }) {
  return (
    turn.text === text &&
    turn.id === (reply?.message_id ?? null) &&
    turn.isInterrupted === (reply?.is_interrupted ?? false) &&
    (turn.id !== null || (turn.reply?.text ?? null) === (reply?.text ?? null))
  );
}
