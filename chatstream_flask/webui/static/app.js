/** Entry point: creates the parts of the page and connects them. */

import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConnectionNotice } from "./connection_notice.js";
import { ConversationView, exampleButtons } from "./conversation_view.js";
import { explain } from "./explanation.js";
import { Feedback } from "./feedback.js";
import { chooseLanguage, fillWords, ownText, word } from "./i18n.js";
import { NewConversation } from "./new_conversation.js";
import { Settings } from "./settings.js";
import { storageOf } from "./storage.js";
import { isCancelKey } from "./text_field.js";
import { setUpTheme } from "./theme.js";

const UNSENT = "chatstream.unsent";
const byId = (id) => document.getElementById(id);
const params = JSON.parse(document.body.dataset.params);

function setUpWords() {
  document.documentElement.lang = chooseLanguage(params.language ? [params.language] : navigator.languages);
  fillWords(document);
  if (params.title) byId("title").textContent = document.title = ownText(params.title);
  if (params.greeting) byId("greeting").textContent = ownText(params.greeting);
  if (params.placeholder) byId("composer-area").placeholder = ownText(params.placeholder);
}

function examples() {
  return ownText(params.examples) ?? [1, 2, 3, 4].map((number) => word(`example_${number}`));
}

function setUp() {
  const tabStorage = storageOf("sessionStorage");
  const api = new Api(document.querySelector("meta[name=csrf-token]")?.content ?? null);
  const view = new ConversationView({
    scroller: byId("scroller"),
    list: byId("turns"),
    welcome: byId("welcome"),
    downButton: byId("down-button"),
  });
  const composer = new Composer(
    { area: byId("composer-area"), button: byId("composer-button") },
    {
      send: (text) => chat.send(text),
      stop: () => chat.stop(),
      scrollPage: (direction) => view.scrollPage(direction),
    },
    tabStorage,
  );
  const connection = new ConnectionNotice({
    notice: byId("connection"),
    text: byId("connection-text"),
    button: byId("connection-button"),
  });
  const feedback = params.show_feedback ? new Feedback(api, tabStorage) : null;
  const chat = new Chat({ api, view, composer, connection, feedback });
  setUpHead(api, chat, composer);
  byId("examples").append(...exampleButtons(examples(), (text) => chat.send(text)));
  document.addEventListener("keydown", (event) => {
    const isForUs = isCancelKey(event) && chat.running && !document.querySelector("dialog[open]");
    if (isForUs) chat.stop();
  });
  const look = () => document.visibilityState === "visible" && chat.catchUp().then(hideProblem, tellProblem);
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pageshow", (event) => event.persisted && look());
  chat.restoreUnsent(JSON.parse(tabStorage.getItem(UNSENT) ?? "[]"));
  window.addEventListener("pagehide", () => tabStorage.setItem(UNSENT, JSON.stringify(chat.unsent)));
  look();
  composer.takeFocus();
}

function setUpHead(api, chat, composer) {
  setUpTheme(byId("theme-button"), storageOf("localStorage"));
  const newConversation = new NewConversation(
    { dialog: byId("new-dialog"), confirm: byId("new-confirm"), save: byId("new-save"), cancel: byId("new-cancel") },
    chat,
    composer,
    tellProblem,
  );
  byId("new-button").addEventListener("click", () => newConversation.ask());
  if (!params.show_settings) return;
  const settings = new Settings(
    {
      dialog: byId("settings-dialog"),
      form: byId("settings-form"),
      fields: byId("settings-fields"),
      problem: byId("settings-problem"),
      resetButton: byId("settings-reset"),
      cancelButton: byId("settings-cancel"),
    },
    api,
  );
  byId("settings-button").hidden = false;
  byId("settings-button").addEventListener("click", () => settings.open());
}

function tellProblem(error) {
  byId("problem").textContent = error.status ? explain(error) : String(error);
  byId("problem").hidden = false;
}

function hideProblem() {
  byId("problem").hidden = true;
}

setUpWords();
setUp();
