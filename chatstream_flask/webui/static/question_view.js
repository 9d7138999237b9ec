/** The question of a turn, which can be copied and edited. */

import { copyText } from "./clipboard.js";
import { element, icon } from "./element.js";
import { label, word } from "./i18n.js";
import { fitHeight, isCancelKey, isSendKey } from "./text_field.js";

export class QuestionView {
  /** @param {(text: string) => void} onEdit */
  constructor(text, onEdit) {
    Object.assign(this, { text, onEdit });
    this.bubble = element("div", { class: "bubble" }, text);
    this.editButton = this.#button("edit", "pencil", () => this.edit());
    const copyButton = this.#button("copy", "copy", () => copyText(text, copyButton));
    this.actions = element("div", { class: "actions" }, this.editButton, copyButton);
    this.element = element(
      "div",
      { class: "question" },
      element("h2", { class: "visually-hidden" }, word("you_said")),
      this.bubble,
      this.actions,
    );
    this.editButton.hidden = true;
  }

  set canEdit(can) {
    this.editButton.hidden = !can;
  }

  /** The text of the open editor; null if the question is not being edited. */
  get draft() {
    return this.element.querySelector(".edit-area")?.value ?? null;
  }

  edit() {
    const area = element("textarea", { class: "edit-area", rows: 1, "aria-label": word("edit_label") });
    area.value = this.text;
    const send = () => {
      const text = area.value;
      if (!text.trim()) return;
      close();
      this.onEdit(text);
    };
    const close = () => {
      form.replaceWith(this.bubble);
      this.element.classList.remove("is-edited");
      this.editButton.focus();
    };
    const form = element(
      "div",
      { class: "edit-form" },
      area,
      element("span", { class: "edit-note" }, word("edit_note")),
      element("button", { type: "button", class: "button", onclick: close }, word("cancel")),
      element("button", { type: "button", class: "button primary", onclick: send }, word("edit_send")),
    );
    area.addEventListener("input", () => fitHeight(area));
    area.addEventListener("keydown", (event) => {
      if (isSendKey(event)) send();
      else if (isCancelKey(event)) close();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.bubble.replaceWith(form);
    this.element.classList.add("is-edited");
    fitHeight(area);
    area.focus();
  }

  #button(key, picture, act) {
    const button = element("button", { type: "button", class: "icon-button", onclick: act }, icon(picture));
    label(button, key);
    return button;
  }
}
