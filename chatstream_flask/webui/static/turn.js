/** A question and its reply, or why there is none. */

import { element, icon } from "./element.js";
import { word } from "./i18n.js";
import { QuestionView } from "./question_view.js";
import { ReplyView } from "./reply_view.js";

export class Turn {
  id = null; // id of the reply, once the server has sent it
  isInterrupted = false;
  isFailed = false; // there is no reply, and the server has not stored the question
  reply = null;

  /** @param acts `edit(turn, text)`, `regenerate(turn)`, `answerNow(turn)`, `confirmStep(turn, stepId, confirm)`, `like(turn, isLike)` or null */
  constructor(text, acts) {
    Object.assign(this, { text, acts });
    this.question = new QuestionView(text, (edited) => acts.edit(this, edited));
    this.element = element("article", { class: "turn" }, this.question.element);
  }

  beginReply() {
    this.clearFailure();
    this.putReply(this.#makeReply());
    this.reply.begin();
  }

  /** @param kept the message, as the server has stored it */
  showKept(kept) {
    Object.assign(this, { id: kept.message_id, isInterrupted: kept.is_interrupted });
    this.putReply(this.#makeReply());
    this.reply.showKept(kept);
  }

  /** @param {ReplyView | null} reply */
  putReply(reply) {
    this.reply?.element.remove();
    this.reply = reply;
    if (reply) this.element.append(reply.element);
  }

  /** @param {{key: string, act: () => void}[]} ways one button for each */
  showFailure(text, ways) {
    this.clearFailure();
    const buttons = ways.map(({ key, act }) =>
      element("button", { type: "button", class: "button", onclick: act }, word(key)),
    );
    this.failure = element(
      "div",
      { class: "failure", role: "alert" },
      icon("alert"),
      element("p", {}, text),
      element("div", { class: "ways" }, ...buttons),
    );
    this.element.append(this.failure);
  }

  clearFailure() {
    this.failure?.remove();
    this.failure = null;
  }

  get asMarkdown() {
    const reasoning = this.reply?.reasoning?.text;
    return [
      [word("you"), this.text],
      ...(reasoning ? [[word("reasoning"), reasoning]] : []),
      [word("assistant"), this.reply?.text ?? ""],
    ]
      .map(([name, text]) => `## ${name}\n\n${text}`)
      .join("\n\n");
  }

  #makeReply() {
    const { regenerate, answerNow, confirmStep, like } = this.acts;
    return new ReplyView({
      regenerate: () => regenerate(this),
      answerNow: () => answerNow(this),
      confirmStep: (stepId, confirm) => confirmStep(this, stepId, confirm),
      like: like && ((isLike) => like(this, isLike)),
    });
  }
}
