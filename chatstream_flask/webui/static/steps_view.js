/** What the model has called of the app's functions: a line for each call, which opens to show the result. */

import { announce } from "./announcer.js";
import { element } from "./element.js";
import { word } from "./i18n.js";

const WORDS = {
  confirm: "step_confirm",
  running: "step_running",
  done: "step_done",
  failed: "step_failed",
  declined: "step_declined",
};

export class StepsView {
  lines = new Map(); // by the id of the step

  /** @param confirm `confirm(stepId, isConfirmed)` answers a call that waits for it */
  constructor(confirm) {
    this.confirm = confirm;
    this.element = element("ul", { class: "steps", "aria-label": word("steps") });
  }

  /** @param step `id`, `name`, `arguments`, `status` and, if it has ended, `result` */
  show(step) {
    const line = element("li", { class: `step is-${step.status}` }, this.#details(step));
    if (step.status === "confirm") line.append(this.#question(step));
    const before = this.lines.get(step.id);
    if (before) before.replaceWith(line);
    else this.element.append(line);
    this.lines.set(step.id, line);
  }

  #details({ name, arguments: given, status, result }) {
    return element(
      "details",
      {},
      element("summary", {}, word(WORDS[status], { name })),
      element("pre", { tabindex: "0" }, JSON.stringify(given, null, 2)),
      result === undefined ? null : element("pre", { tabindex: "0" }, result),
    );
  }

  #question({ id, name }) {
    announce(word("step_confirm", { name }));
    const button = (key, isConfirmed) => {
      const made = element("button", { type: "button", class: "button" }, word(key));
      made.addEventListener("click", () => {
        for (const each of buttons) each.disabled = true;
        this.confirm(id, isConfirmed);
      });
      return made;
    };
    const buttons = [button("step_allow", true), button("step_decline", false)];
    return element("div", { class: "ways" }, ...buttons);
  }
}
