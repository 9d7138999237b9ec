/** On a site without lists a new conversation deletes the old one: a dialog asks first and offers to save it. */

import { element } from "./element.js";

export class NewConversation {
  constructor({ dialog, confirm, save, cancel }, chatOfNow, composer, onProblem) {
    Object.assign(this, { dialog, cancel, chatOfNow, composer, onProblem });
    confirm.addEventListener("click", () => this.#start());
    save.addEventListener("click", () => download(chatOfNow().asMarkdown));
    cancel.addEventListener("click", () => dialog.close());
  }

  ask() {
    if (this.chatOfNow().isEmpty) return this.composer.focus();
    this.dialog.showModal();
    this.cancel.focus(); // so that Enter deletes nothing
  }

  #start() {
    this.dialog.close();
    this.composer.takeFocus();
    this.chatOfNow().startNew().catch(this.onProblem);
  }
}

function download(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
  const day = new Date().toISOString().slice(0, 10);
  element("a", { href: url, download: `chat-${day}.md` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
