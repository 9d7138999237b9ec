/** Client of the chat API, whose routes are relative to the address of the page, or to another one. */

import { readEvents } from "./event_stream.js";

const MESSAGE_ID = "X-ChatStream-Last-Generated-Message-Id";
const DEFAULT_RETRY_AFTER_SEC = 5;
const FIRST = "chatstream-first"; // a lock that the tabs of a browser share

/** The server refused a request. */
export class Refused extends Error {
  constructor(status, code, detail, retryAfterSec) {
    super(`${status} ${code}: ${detail}`);
    Object.assign(this, { status, code, detail, retryAfterSec });
  }
}

/** There was no answer; whether the server got the request is unknown. */
export class Unreachable extends Error {}

export class Api {
  /**
   * @param shared `csrfToken`, sent with each change if the host app needs one, else null; `isKnown`, whether
   *   the server has something of this visitor, and thus a session; `base`, the address of the API, if it is
   *   not that of this page
   * @param {string | null} conversationId null: the first conversation of the session
   * @param {boolean} isNew the conversation is begun with its first message or setting
   */
  constructor(shared, conversationId = null, isNew = false) {
    Object.assign(this, { shared, conversationId, isNew });
  }

  /** Return the client of another conversation. */
  of(conversationId) {
    return new Api(this.shared, conversationId);
  }

  ofNew() {
    return new Api(this.shared, null, true);
  }

  // -- the list of conversations ----------------------------------------------------------------------------

  /** @return `conversations` and `has_more` */
  async list(search, limit) {
    return this.#json(`conversations?${new URLSearchParams({ search, limit })}`);
  }

  /** @param body `title` and `messages`, if there are any; returns the entry of the list */
  async create(body) {
    return this.#begin(() => this.#json("conversations", { body }));
  }

  async change(conversationId, changed) {
    return this.#json(`conversations/${encodeURIComponent(conversationId)}`, { body: changed, method: "PATCH" });
  }

  async delete(conversationId) {
    await this.#fetch(`conversations/${encodeURIComponent(conversationId)}`, { body: {}, method: "DELETE" });
  }

  // -- one conversation -------------------------------------------------------------------------------------

  /** Send a message; returns the id of the reply and its events. */
  async ask(body, signal) {
    await this.#beginConversation();
    const send = () => this.#fetch("chat_stream", { body, signal, accept: "text/event-stream" });
    return this.#events(await this.#begin(send, signal));
  }

  /** Return the rest of a reply, after the event with the id `lastEventId`. */
  async resume(messageId, lastEventId, signal) {
    const headers = { "Last-Event-ID": lastEventId };
    const path = `chat_stream/${encodeURIComponent(messageId)}`;
    return this.#events(await this.#fetch(path, { headers, signal, accept: "text/event-stream" }));
  }

  async cancel(messageId) {
    await this.#fetch(`chat_stream/${encodeURIComponent(messageId)}/cancel`, { body: {} });
  }

  async answerNow(messageId) {
    await this.#fetch(`chat_stream/${encodeURIComponent(messageId)}/answer_now`, { body: {} });
  }

  /** Let a function call of a running reply go ahead, or decline it. */
  async confirmStep(messageId, stepId, confirm) {
    const path = `chat_stream/${encodeURIComponent(messageId)}/steps/${encodeURIComponent(stepId)}`;
    await this.#fetch(path, { body: { confirm } });
  }

  async conversation() {
    if (this.isNew) return { id: null, messages: [], running: null };
    const conversation = await this.#json("conversation");
    this.shared.isKnown ||= conversation.messages.length > 0 || conversation.running !== null;
    this.conversationId ??= conversation.id;
    return conversation;
  }

  async clear() {
    return this.#json("clear_context", { body: {} });
  }

  /** @return `generation_params`, and `reasoning_settings`: names of those that this model's reasoning has */
  async generationParams() {
    await this.#beginConversation();
    return this.#json("get_generation_params");
  }

  /** @param {object | null} params null restores the server's defaults */
  async setGenerationParams(params) {
    await this.#beginConversation();
    const set = () => this.#json("set_generation_params", { body: params });
    return this.#begin(set);
  }

  async setFeedback(messageId, isLike) {
    return this.#json("set_feedback", { body: { message_id: messageId, is_like: isLike } });
  }

  async #beginConversation() {
    if (!this.isNew) return;
    const { id } = await this.create({});
    Object.assign(this, { conversationId: id, isNew: false });
  }

  /**
   * Send what may begin the session, one tab after the other: two sessions begun at once would leave the
   * browser with the cookie of one, and the conversation of the other would be lost. Browsers have locks over
   * https and on their own machine.
   */
  async #begin(send, signal) {
    const isAlone = this.shared.isKnown || !navigator.locks;
    const answer = await (isAlone ? send() : navigator.locks.request(FIRST, { signal }, send));
    this.shared.isKnown = true;
    return answer;
  }

  #events(response) {
    const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
    if (!isStream) throw new Refused(response.status, "unexpected", response.headers.get("Content-Type") ?? "");
    return { messageId: response.headers.get(MESSAGE_ID), events: readEvents(response.body) };
  }

  async #json(path, options) {
    const response = await this.#fetch(path, options);
    try {
      return await response.json();
    } catch {
      throw new Refused(response.status, "unexpected", response.headers.get("Content-Type") ?? "");
    }
  }

  async #fetch(path, request = {}) {
    let response = await this.#answer(path, request);
    if (this.shared.csrfToken && response.status === 400 && !isJSON(response)) {
      await this.#renewToken();
      response = await this.#answer(path, request);
    }
    const refusal = await refusalOf(response);
    if (refusal) throw refusal;
    return response;
  }

  async #answer(path, { body, method = "POST", headers = {}, signal, accept = "application/json" }) {
    const options = { headers: { Accept: accept, ...headers }, signal, cache: "no-store", credentials: "include" };
    if (body !== undefined) {
      options.method = method;
      options.body = JSON.stringify(body);
      options.headers["Content-Type"] = "application/json";
      if (this.shared.csrfToken) options.headers["X-CSRFToken"] = this.shared.csrfToken;
    }
    try {
      return await fetch(this.#url(path), options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable(String(error));
    }
  }

  #url(path) {
    const url = new URL(path, this.shared.base ?? document.baseURI);
    const isOfConversation = this.conversationId !== null && path !== "" && !path.startsWith("conversations");
    if (isOfConversation) url.searchParams.set("conversation_id", this.conversationId);
    return url;
  }

  /** Load the page again for a new token; tokens expire while a page stays open. */
  async #renewToken() {
    const page = await (await this.#answer("", { accept: "text/html" })).text();
    this.shared.csrfToken = /name="csrf-token" content="([^"]+)"/.exec(page)?.[1] ?? this.shared.csrfToken;
  }
}

function isJSON(response) {
  return /json/.test(response.headers.get("Content-Type"));
}

/** A full server may answer with status 200, as the original ChatStream does. */
async function refusalOf(response) {
  const type = response.headers.get("Content-Type") ?? "";
  if (response.ok && !response.redirected && type !== "application/json") return null;
  if (response.redirected) return new Refused(401, "signed_out", response.url, 0);
  const told = isJSON(response) ? await response.clone().json().catch(() => ({})) : {};
  if (response.ok && !told.error) return null;
  const retryAfterSec = Number(response.headers.get("Retry-After")) || DEFAULT_RETRY_AFTER_SEC;
  const detail = told.detail ?? response.statusText;
  return new Refused(response.status, told.error ?? `http_${response.status}`, detail, retryAfterSec);
}
