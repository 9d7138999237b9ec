/** A reply: its position in the queue, its text, and the buttons below it. */

import { announce } from "./announcer.js";
import { copyText } from "./clipboard.js";
import { element, icon } from "./element.js";
import { exactly, label, roughly, word } from "./i18n.js";
import { ReasoningView } from "./reasoning_view.js";
import { StepsView } from "./steps_view.js";
import { drawMarkdown, StreamingMarkdown } from "./streaming_markdown.js";

const NOTES = {
  cancelled: "interrupted",
  disconnected: "interrupted",
  shutdown: "interrupted",
  timeout: "timeout",
  length: "length",
};

export class ReplyView {
  text = "";

  /** @param acts `regenerate()`, `answerNow()`, `confirmStep(stepId, confirm)`, `like(isLike | null)`; without `like` there are no feedback buttons */
  constructor(acts) {
    this.acts = acts;
    this.prose = element("div", { class: "prose" });
    this.element = element(
      "div",
      { class: "reply" },
      element("h2", { class: "visually-hidden" }, word("assistant_said")),
      this.prose,
    );
  }

  // -- while it is running ----------------------------------------------------------------------------------

  begin() {
    this.element.classList.add("is-running");
    this.status = element("p", { class: "status" }, element("span", { class: "pulse" }), element("span"));
    this.prose.before(this.status);
    this.#setStatus(word("thinking"));
    this.markdown = new StreamingMarkdown(this.prose, announce);
  }

  showQueue({ position, eta_s: etaSec }) {
    const eta = etaSec === null ? null : word("about", { time: roughly(etaSec) });
    const key = (position === 1 ? "queue_next" : "queue_place") + (eta === null ? "" : "_eta");
    const text = word(key === "queue_place_eta" ? "queue_eta" : key, { n: position, eta });
    this.#setStatus(text);
    if (position !== this.announcedPosition) announce(text);
    this.announcedPosition = position;
  }

  showStart() {
    this.#setStatus(word("thinking"));
    announce(word("reply_begins"));
  }

  pushReasoning(text) {
    this.status.remove();
    if (!this.reasoning) {
      this.reasoning = new ReasoningView(this.acts.answerNow);
      this.prose.before(this.reasoning.element);
    }
    this.reasoning.push(text);
  }

  /** @param {{title: string, url?: string}[]} sources what the app has given the model to answer from */
  showSources(sources) {
    this.sources ??= element("ol", { class: "sources", "aria-label": word("sources") });
    this.sources.replaceChildren(...sources.map((source) => element("li", {}, sourceLink(source))));
    this.prose.after(this.sources);
  }

  /** @param step a function call, as it is now */
  showStep(step) {
    this.status?.remove();
    if (!this.steps) {
      this.steps = new StepsView(this.acts.confirmStep);
      this.prose.before(this.steps.element);
    }
    this.steps.show(step);
  }

  /** Whether there is something that the server keeps of an interrupted reply. */
  get hasContent() {
    return Boolean(this.text || this.reasoning || this.steps);
  }

  push(text) {
    this.status.remove();
    if (!this.text) this.reasoning?.end();
    this.text += text;
    this.markdown.push(text);
  }

  // -- when it has ended -------------------------------------------------------------------------------

  /** @param done data of the event: finish reason and timings */
  finish(done) {
    this.markdown.end();
    this.#settle();
    const { reasoning_ms: reasoningMs } = done.timings ?? {};
    this.reasoning?.end(reasoningMs === undefined ? null : reasoningMs / 1000);
    this.#note(NOTES[done.finish_reason]);
    this.#noteTruncation(done.num_dropped_turns);
    this.#showActions(done);
  }

  /** Show a reply that had ended before the page was loaded. */
  showKept({ text, sources, steps, reasoning, reasoning_s: reasoningSec, is_interrupted: isInterrupted }) {
    if (reasoning) {
      this.reasoning = new ReasoningView(null);
      this.reasoning.push(reasoning);
      this.reasoning.end(reasoningSec);
      this.prose.before(this.reasoning.element);
    }
    this.text = text;
    drawMarkdown(this.prose, text);
    if (sources) this.showSources(sources);
    for (const step of steps ?? []) this.showStep(step);
    if (isInterrupted) this.#note("interrupted");
    this.#showActions(null);
  }

  set canRegenerate(can) {
    if (this.regenerateButton) this.regenerateButton.hidden = !can;
  }

  set isLiked(isLike) {
    this.likeButton?.setAttribute("aria-pressed", isLike === true);
    this.dislikeButton?.setAttribute("aria-pressed", isLike === false);
    this.liked = isLike;
  }

  #setStatus(text) {
    this.status.lastElementChild.textContent = text;
  }

  #settle() {
    this.element.classList.remove("is-running");
    this.status.remove();
  }

  #note(key, values) {
    if (key) this.element.append(element("p", { class: "note" }, word(key, values)));
  }

  #noteTruncation(numTurns) {
    if (numTurns) this.#note(numTurns === 1 ? "truncated_one" : "truncated", { n: numTurns });
  }

  #showActions(done) {
    const copyButton = this.#button("copy", "copy", () => copyText(this.text, copyButton));
    this.regenerateButton = this.#button("regenerate", "again", this.acts.regenerate);
    this.regenerateButton.hidden = true;
    const actions = element("div", { class: "actions" }, copyButton, this.regenerateButton);
    if (this.acts.like) {
      this.likeButton = this.#button("like", "like", () => this.acts.like(this.liked === true ? null : true));
      this.dislikeButton = this.#button("dislike", "dislike", () => this.acts.like(this.liked === false ? null : false));
      actions.append(this.likeButton, this.dislikeButton);
    }
    if (done?.timings) actions.append(...this.#details(done));
    this.element.append(actions);
    if (this.acts.like) this.isLiked = null;
  }

  #details({ timings, usage }) {
    const line = element("span", { class: "details", hidden: true }, figures(timings, usage).join(" · "));
    const button = this.#button("details", "info", () => {
      line.hidden = !line.hidden;
      button.setAttribute("aria-expanded", !line.hidden);
    });
    button.setAttribute("aria-expanded", "false");
    return [button, line];
  }

  #button(key, picture, act) {
    const button = element("button", { type: "button", class: "icon-button", onclick: act }, icon(picture));
    label(button, key);
    return button;
  }
}

/** A link, if it leads to a page; other addresses, such as `javascript:`, are not followed. */
function sourceLink({ title, url }) {
  const link = element("a", { href: url, target: "_blank", rel: "noopener" }, title);
  return url && /^https?:$/.test(link.protocol) ? link : element("span", {}, title);
}

function figures(timings, usage) {
  const { queue_ms: queue, time_to_first_token_ms: first, total_ms: total, tokens_per_second: speed } = timings;
  return [
    speed === null ? null : word("detail_speed", { n: speed }),
    first === null ? null : word("detail_first_token", { time: exactly(first) }),
    queue >= 10 ? word("detail_queue", { time: exactly(queue) }) : null,
    total === null ? null : word("detail_total", { time: exactly(total) }),
    word("detail_tokens", { n: usage.completion_tokens }),
    word("detail_prompt", { n: usage.prompt_tokens }),
  ].filter(Boolean);
}
