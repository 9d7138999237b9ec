/** Client of the chat API, whose routes are relative to the address of the page. */

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
  /** @param {string | null} csrfToken sent with each POST, if the host app needs one */
  constructor(csrfToken) {
    this.csrfToken = csrfToken;
    this.isKnown = false; // whether the server has something of this visitor, and thus a session
  }

  /** Send a message; returns the id of the reply and its events. */
  async ask(body, signal) {
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
    const conversation = await this.#json("conversation");
    this.isKnown = conversation.messages.length > 0 || conversation.running !== null;
    return conversation;
  }

  async clear() {
    return this.#json("clear_context", { body: {} });
  }

  /** @return `generation_params`, and `reasoning_settings`: names of those that this model's reasoning has */
  async generationParams() {
    return this.#json("get_generation_params");
  }

  /** @param {object | null} params null restores the server's defaults */
  async setGenerationParams(params) {
    const set = () => this.#json("set_generation_params", { body: params });
    return this.#begin(set);
  }

  async setFeedback(messageId, isLike) {
    return this.#json("set_feedback", { body: { message_id: messageId, is_like: isLike } });
  }

  /**
   * Send what may begin the session, one tab after the other: two sessions begun at once would leave the
   * browser with the cookie of one, and the conversation of the other would be lost. Browsers have locks over
   * https and on their own machine.
   */
  async #begin(send, signal) {
    const isAlone = this.isKnown || !navigator.locks;
    const answer = await (isAlone ? send() : navigator.locks.request(FIRST, { signal }, send));
    this.isKnown = true;
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
    if (this.csrfToken && response.status === 400 && !isJSON(response)) {
      await this.#renewToken();
      response = await this.#answer(path, request);
    }
    const refusal = await refusalOf(response);
    if (refusal) throw refusal;
    return response;
  }

  async #answer(path, { body, headers = {}, signal, accept = "application/json" }) {
    const options = { headers: { Accept: accept, ...headers }, signal, cache: "no-store" };
    if (body !== undefined) {
      options.method = "POST";
      options.body = JSON.stringify(body);
      options.headers["Content-Type"] = "application/json";
      if (this.csrfToken) options.headers["X-CSRFToken"] = this.csrfToken;
    }
    try {
      return await fetch(new URL(path, document.baseURI), options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable(String(error));
    }
  }

  /** Load the page again for a new token; tokens expire while a page stays open. */
  async #renewToken() {
    const page = await (await this.#answer("", { accept: "text/html" })).text();
    this.csrfToken = /name="csrf-token" content="([^"]+)"/.exec(page)?.[1] ?? this.csrfToken;
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
