/** The list of turns, the welcome text while it is empty, and scrolling. */

import { element } from "./element.js";
import { word } from "./i18n.js";

const NEAR_END_PX = 48;

export class ConversationView {
  /** @param scroller contains the `welcome` text and, while this conversation is shown, its `list` of turns */
  constructor({ scroller, welcome, downButton }) {
    Object.assign(this, { scroller, welcome, downButton });
    this.list = element("section", { id: "turns", class: "column turns", "aria-label": word("conversation") });
    this.isFollowing = true;
    this.resized = new ResizeObserver(() => this.#onResize());
  }

  get isShown() {
    return this.list.isConnected;
  }

  show() {
    this.scroller.append(this.list);
    this.shown = new AbortController();
    const { signal } = this.shown;
    this.scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true, signal });
    this.downButton.addEventListener("click", () => this.follow(), { signal });
    this.resized.observe(this.list);
    this.resized.observe(this.scroller);
    this.#showWelcome();
    this.follow();
  }

  hide() {
    this.shown.abort();
    this.resized.disconnect();
    this.list.remove();
  }

  add(turn) {
    this.list.append(turn.element);
    this.#showWelcome();
  }

  remove(turn) {
    turn.element.remove();
    this.#showWelcome();
  }

  /** Scroll to the end, and follow it while text is added. */
  follow() {
    this.isFollowing = true;
    this.#toEnd();
  }

  scrollPage(direction) {
    this.scroller.scrollBy({ top: direction * this.scroller.clientHeight * 0.85 });
  }

  #showWelcome() {
    if (this.isShown) this.welcome.hidden = this.list.childElementCount > 0;
  }

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.downButton.hidden = this.isFollowing;
  }

  #onResize() {
    if (this.isFollowing) this.#toEnd();
    else this.#onScroll();
  }

  #toEnd() {
    if (!this.isShown) return;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.downButton.hidden = true;
  }
}

/** Show the example prompts of the welcome text. */
export function exampleButtons(texts, onChoose) {
  return texts.map((text) => element("button", { type: "button", class: "example", onclick: () => onChoose(text) }, text));
}
