/** Notice that the server cannot be reached, and when the next attempt is. */

import { announce } from "./announcer.js";
import { roughly, word } from "./i18n.js";

export class ConnectionNotice {
  constructor({ notice, text, button }) {
    Object.assign(this, { notice, text, button });
    button.addEventListener("click", () => this.tryNow?.());
  }

  lost = (delaySec, tryNow) => {
    this.text.textContent = word("connection_lost", { time: roughly(delaySec) });
    if (this.notice.hidden) announce(this.text.textContent);
    this.tryNow = () => {
      this.text.textContent = word("connection_trying");
      tryNow();
    };
    this.notice.hidden = false;
  };

  back = () => {
    this.notice.hidden = true;
    this.tryNow = null;
  };
}
