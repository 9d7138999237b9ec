/** The message field and its button, which sends or stops; the draft survives a reload. */

import { setIcon } from "./element.js";
import { label } from "./i18n.js";
import { fitHeight, IS_TOUCH_ONLY, isSendKey } from "./text_field.js";

const DRAFT = "chatstream.draft";
const MAX_DRAFT_LEN = 100_000; // characters; browsers store a few MB per site

export class Composer {
  /** @param acts `send(text)`, `stop()`, `scrollPage(direction)` */
  constructor({ area, button }, acts, storage) {
    Object.assign(this, { area, button, acts, storage });
    area.value = storage.getItem(DRAFT) ?? "";
    area.addEventListener("input", () => this.#onInput());
    area.addEventListener("keydown", (event) => this.#onKey(event));
    button.addEventListener("click", () => (this.isRunning ? acts.stop() : this.#send()));
    this.isRunning = false;
    this.#onInput();
  }

  set running(isRunning) {
    this.isRunning = isRunning;
    setIcon(this.button, isRunning ? "stop" : "send");
    label(this.button, isRunning ? "stop" : "send");
    this.button.classList.toggle("is-stop", isRunning);
    this.#onInput();
  }

  /** Put a text into the field, unless something else has been typed. */
  offer(text) {
    if (!this.area.value.trim()) this.fill(text);
  }

  fill(text) {
    this.area.value = text;
    this.#onInput();
    this.focus();
  }

  focus() {
    this.area.focus();
    this.area.setSelectionRange(this.area.value.length, this.area.value.length);
  }

  /** Focus the field after a button was pressed; not on phones, whose keyboard would cover half of the page. */
  takeFocus() {
    if (!IS_TOUCH_ONLY) this.focus();
  }

  #onInput() {
    fitHeight(this.area);
    if (this.area.value.length <= MAX_DRAFT_LEN) this.storage.setItem(DRAFT, this.area.value);
    this.button.disabled = !this.isRunning && !this.area.value.trim();
  }

  #onKey(event) {
    if (event.key === "PageUp") this.acts.scrollPage(-1);
    else if (event.key === "PageDown") this.acts.scrollPage(1);
    else if (isSendKey(event)) this.#send();
    else return;
    event.preventDefault();
  }

  #send() {
    const text = this.area.value;
    if (this.isRunning || !text.trim()) return;
    this.fill("");
    this.acts.send(text);
  }
}
