/**
 * The widget: a button in the corner of any page, which opens the chat in a panel.
 *
 * A page loads the button only. The rest follows when the panel opens, or at once where the visitor had it open,
 * or was waiting for a reply, on the page before. All of it is in a shadow root, so that the styles of the page and
 * those of the chat leave each other alone.
 */

import { element, icon } from "./element.js";
import { chooseLanguage, label, ownText, word } from "./i18n.js";
import { storageOf } from "./storage.js";
import { isCancelKey } from "./text_field.js";

/** @param params the options of the chat page, and `needs_token`; @param base the address of the chat page */
export async function startWidget(params, base) {
  const preferred = params.language ? [params.language] : [document.documentElement.lang, ...navigator.languages];
  const language = chooseLanguage(preferred);
  const [styles, icons] = await Promise.all([styleSheet("widget.css"), iconsOf("icons.svg")]);
  const host = document.createElement("chatstream-widget"); // a name that selectors of the page do not have
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [styles];
  const widget = new Widget(root, params, base);
  root.append(element("div", { class: "widget", lang: language }, icons, widget.launcher, widget.panel));
  document.body.append(host);
  widget.goOn();
}

class Widget {
  storage = storageOf("sessionStorage");
  chat = null; // once it is loaded

  constructor(root, params, base) {
    Object.assign(this, { root, params, base });
    this.stateKey = `chatstream.widget ${base}`;
    this.launcher = element("button", { type: "button", class: "launcher", "aria-haspopup": "dialog" }, icon("chat"));
    label(this.launcher, "widget_open");
    this.launcher.addEventListener("click", () => this.open());
    this.closeButton = element("button", { type: "button", class: "icon-button" }, icon("cross"));
    label(this.closeButton, "widget_close");
    this.closeButton.addEventListener("click", () => this.close());
    this.title = element("h2", { id: "title" }, ownText(params.title));
    this.head = element("header", { class: "head" }, this.title, element("span", { class: "spacer" }), this.closeButton);
    this.problem = element("p", { class: "bar", role: "alert", hidden: true });
    const properties = { class: "panel", role: "dialog", "aria-labelledby": "title", tabindex: "-1", hidden: true };
    this.panel = element("section", properties, this.head, this.problem);
    this.panel.addEventListener("keydown", (event) => isCancelKey(event) && this.close());
    for (const type of ["keydown", "keypress", "keyup"]) {
      this.panel.addEventListener(type, (event) => event.stopPropagation()); // shortcuts of the page
    }
    window.addEventListener("pagehide", () => this.storage.setItem(this.stateKey, this.#state));
  }

  /** Be as on the page before. */
  goOn() {
    const state = this.storage.getItem(this.stateKey);
    if (state === "open") this.#show();
    if (state) this.#load();
  }

  async open() {
    this.#show();
    this.panel.focus();
    await this.#load();
    this.chat?.takeFocus();
  }

  close() {
    this.panel.hidden = true;
    this.launcher.hidden = false;
    this.launcher.focus();
  }

  tellProblem = (text) => {
    this.problem.textContent = text ?? "";
    this.problem.hidden = !text;
  };

  get #state() {
    if (!this.panel.hidden) return "open";
    return this.chat?.isRunning ? "running" : "";
  }

  #show() {
    this.launcher.hidden = true;
    this.panel.hidden = false;
    this.chat?.fit();
  }

  #load() {
    this.loading ??= this.#loadChat().catch(() => this.tellProblem(word("widget_failed")));
    return this.loading;
  }

  async #loadChat() {
    const { DOMPurify } = globalThis; // the page's own; ours takes its name while it is loaded
    const loaded = import("./widget_chat.js").finally(() => Object.assign(globalThis, { DOMPurify }));
    const [{ WidgetChat }, ...styles] = await Promise.all([loaded, styleSheet("chat.css"), styleSheet("prose.css")]);
    this.root.adoptedStyleSheets = [...styles, ...this.root.adoptedStyleSheets];
    this.chat = new WidgetChat(this);
    await this.chat.start();
  }
}

/** Load a style sheet without `style-src`. Its rem are the widget's font size, as pages set that of `html` at will. */
async function styleSheet(name) {
  const text = await (await fetch(new URL(name, import.meta.url))).text();
  const scaled = (line) => line.replace(/(-?\d*\.?\d+)rem\b/g, "calc($1 * var(--rem))");
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text.replace(/^(?!@media).*$/gm, scaled));
  return sheet;
}

/** Load a picture with the icons; unlike DOMParser, XMLHttpRequest needs no trusted type. */
function iconsOf(name) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", new URL(name, import.meta.url));
    request.responseType = "document";
    request.addEventListener("load", () => resolve(document.importNode(request.responseXML.documentElement, true)));
    request.addEventListener("error", reject);
    request.send();
  });
}
