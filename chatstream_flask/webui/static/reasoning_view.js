/** What the model reasons before its answer: a line with the time it takes, which opens to show the text. */

import { element } from "./element.js";
import { inSeconds, word } from "./i18n.js";

export class ReasoningView {
  text = "";

  /** @param answerNow ends the reasoning; null if it has ended */
  constructor(answerNow) {
    this.title = element("span");
    this.body = element("div", { class: "reasoning-text", tabindex: "0" });
    this.element = element(
      "div",
      { class: "reasoning" },
      element("details", {}, element("summary", {}, this.title), this.body),
    );
    if (answerNow) this.#begin(answerNow);
  }

  #begin(answerNow) {
    this.button = element("button", { type: "button", class: "button" }, word("answer_now"));
    this.button.addEventListener("click", () => {
      this.button.disabled = true;
      answerNow();
    });
    this.element.append(this.button);
    this.title.before(element("span", { class: "pulse" }));
    this.since = Date.now();
    this.#tick();
    this.timer = setInterval(() => this.#tick(), 1000);
  }

  push(text) {
    this.text += text;
    this.body.textContent = this.text;
  }

  /** @param {number | null} seconds how long it took; null if that is not known */
  end(seconds = null) {
    clearInterval(this.timer);
    this.element.querySelector(".pulse")?.remove();
    this.button?.remove();
    const taken = seconds ?? (this.since ? (Date.now() - this.since) / 1000 : null);
    this.title.textContent = taken === null ? word("reasoning") : word("reasoned", { time: inSeconds(taken) });
  }

  #tick() {
    const taken = (Date.now() - this.since) / 1000;
    this.title.textContent = word("reasons", { time: inSeconds(taken) });
  }
}
