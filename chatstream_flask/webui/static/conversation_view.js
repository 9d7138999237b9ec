/** The list of turns, the welcome text while it is empty, and scrolling. */

import { element } from "./element.js";

const NEAR_END_PX = 48;

export class ConversationView {
  /** @param scroller contains the `list` of turns and the `welcome` text */
  constructor({ scroller, list, welcome, downButton }) {
    Object.assign(this, { scroller, list, welcome, downButton });
    this.isFollowing = true;
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    downButton.addEventListener("click", () => this.follow());
    const resized = new ResizeObserver(() => this.#onResize());
    resized.observe(list);
    resized.observe(scroller);
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
    this.welcome.hidden = this.list.childElementCount > 0;
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
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.downButton.hidden = true;
  }
}

/** Show the example prompts of the welcome text. */
export function exampleButtons(texts, onChoose) {
  return texts.map((text) => element("button", { type: "button", class: "example", onclick: () => onChoose(text) }, text));
}
