/** The chat in the panel of the widget: the parts of the chat page, in another frame. */

import { announceIn } from "./announcer.js";
import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConnectionNotice } from "./connection_notice.js";
import { ConversationView, exampleButtons } from "./conversation_view.js";
import { latestOf } from "./conversations.js";
import { element, icon } from "./element.js";
import { explain } from "./explanation.js";
import { Feedback } from "./feedback.js";
import { label, ownText, word } from "./i18n.js";

const MAX_LISTED = 50; // conversations among which the one that was used last is looked for
const UNKNOWN_TOKEN = "unknown"; // is refused once, and then replaced by that of the chat page

export class WidgetChat {
  current = null; // Chat
  hasLists = false;

  /** @param {Widget} widget whose panel gets the chat */
  constructor({ panel, head, closeButton, params, base, storage, tellProblem }) {
    Object.assign(this, { params, base, tellProblem });
    this.api = new Api({ csrfToken: tokenOf(params, base), isKnown: false, base });
    this.feedback = params.show_feedback ? new Feedback(storage) : null;
    this.#makeParts();
    closeButton.before(this.newButton, this.fullPageLink);
    panel.append(this.view.scroller, this.foot, this.announcements);
    announceIn(this.announcements);
    this.composer = new Composer(
      { area: this.area, button: this.sendButton },
      {
        send: (text) => this.current?.send(text),
        stop: () => this.current?.stop(),
        scrollPage: (direction) => this.current?.view.scrollPage(direction),
      },
      storage,
    );
    this.connection = new ConnectionNotice({
      notice: this.notice,
      text: this.notice.firstElementChild,
      button: this.notice.lastElementChild,
    });
  }

  get isRunning() {
    return Boolean(this.current?.running);
  }

  async start() {
    const listed = await this.api.list("", MAX_LISTED).catch(() => null);
    this.hasLists = listed !== null;
    this.newButton.hidden = !this.hasLists;
    const latest = latestOf(listed?.conversations ?? []);
    this.#show(latest ? this.api.of(latest.id) : this.api);
    const look = () => document.visibilityState === "visible" && this.#catchUp(this.current);
    document.addEventListener("visibilitychange", look);
    window.addEventListener("pageshow", (event) => event.persisted && look());
  }

  takeFocus() {
    this.composer.takeFocus();
  }

  /** Fit the message field to its text; while it is hidden it has no height. */
  fit() {
    this.area.dispatchEvent(new Event("input"));
  }

  #show(api) {
    const view = new ConversationView(this.view);
    const { composer, connection, feedback } = this;
    const watcher = { onChange: (chat) => this.#changed(chat), onGone: (chat) => this.#gone(chat) };
    this.current?.hide();
    this.current = new Chat({ api, view, composer, connection, feedback, watcher });
    this.current.show();
    this.#link();
    this.#catchUp(this.current);
  }

  #startNew() {
    if (!this.current.isEmpty) this.#show(this.api.ofNew());
    this.takeFocus();
  }

  async #catchUp(chat) {
    try {
      await chat.catchUp();
      this.tellProblem(null);
    } catch (error) {
      this.tellProblem(error.status ? explain(error) : word("widget_failed"));
    }
    this.#link();
  }

  async #changed(chat) {
    if (chat.id === null && !chat.running) await chat.catchUp().catch(() => {}); // its id is known now
    this.#link();
  }

  /** The conversation was deleted elsewhere. */
  #gone(chat) {
    if (chat === this.current) this.#show(this.hasLists ? this.api.ofNew() : this.api);
  }

  #link() {
    this.fullPageLink.href = this.current.id === null ? this.base : `${this.base}#${this.current.id}`;
  }

  #makeParts() {
    this.newButton = button("icon-button", "new", "new_conversation", () => this.#startNew());
    this.fullPageLink = element("a", { class: "icon-button", target: "_blank", rel: "noopener" }, icon("expand"));
    this.fullPageLink.title = word("widget_full_page");
    label(this.fullPageLink, "widget_full_page");
    const greeting = element("p", { class: "greeting" }, ownText(this.params.greeting) ?? word("greeting"));
    const examples = exampleButtons(ownText(this.params.examples) ?? [], (text) => this.current.send(text));
    const welcome = element("div", { class: "column welcome" }, greeting, ...examples);
    const downButton = button("icon-button down", "down", "scroll_down");
    downButton.hidden = true;
    this.view = { scroller: element("div", { class: "scroller" }, welcome), welcome, downButton };
    const retryButton = element("button", { type: "button", class: "button" }, word("retry_now"));
    this.notice = element("div", { class: "bar", hidden: true }, element("span"), retryButton);
    this.area = element("textarea", { rows: 1, autocomplete: "off", "aria-label": word("composer_label") });
    this.area.placeholder = ownText(this.params.placeholder) ?? word("composer_placeholder");
    this.sendButton = button("send", "send", "send");
    const composer = element("div", { class: "composer" }, this.area, this.sendButton);
    this.foot = element("footer", { class: "foot" }, downButton, this.notice, composer);
    this.announcements = element("div", { class: "visually-hidden", role: "log", "aria-live": "polite" });
  }
}

/** Return the CSRF token of this page, if the app has protection; pages of another origin have tokens of their own app. */
function tokenOf({ needs_token: isNeeded }, base) {
  if (!isNeeded) return null;
  const isOwn = new URL(base).origin === location.origin;
  return (isOwn && document.querySelector("meta[name=csrf-token]")?.content) || UNKNOWN_TOKEN;
}

function button(kind, picture, key, onclick) {
  const made = element("button", { type: "button", class: kind, onclick }, icon(picture));
  label(made, key);
  return made;
}
