/** Entry point: creates the parts of the page and connects them. */

import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConnectionNotice } from "./connection_notice.js";
import { ConversationView, exampleButtons } from "./conversation_view.js";
import { Conversations } from "./conversations.js";
import { explain } from "./explanation.js";
import { Feedback } from "./feedback.js";
import { chooseLanguage, fillWords, ownText, word } from "./i18n.js";
import { NewConversation } from "./new_conversation.js";
import { Settings } from "./settings.js";
import { storageOf } from "./storage.js";
import { Sidebar } from "./sidebar.js";
import { isCancelKey } from "./text_field.js";
import { setUpTheme } from "./theme.js";

const UNSENT = "chatstream.unsent";
const MAX_WAIT_MS = 2000; // for the list of conversations
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

async function setUp() {
  const tabStorage = storageOf("sessionStorage");
  const csrfToken = document.querySelector("meta[name=csrf-token]")?.content ?? null;
  const api = new Api({ csrfToken, isKnown: false });
  const composer = new Composer(
    { area: byId("composer-area"), button: byId("composer-button") },
    {
      send: (text) => conversations.current?.send(text),
      stop: () => conversations.current?.stop(),
      scrollPage: (direction) => conversations.current?.view.scrollPage(direction),
    },
    tabStorage,
  );
  const connection = new ConnectionNotice({
    notice: byId("connection"),
    text: byId("connection-text"),
    button: byId("connection-button"),
  });
  const feedback = params.show_feedback ? new Feedback(tabStorage) : null;
  const watcher = {
    onChange: (chat) => conversations.changed(chat),
    onGone: (chat) => conversations.removed(chat.id),
  };
  const parts = { scroller: byId("scroller"), welcome: byId("welcome"), downButton: byId("down-button") };
  const conversations = new Conversations(api, (apiOfChat) => {
    const view = new ConversationView(parts);
    const chat = new Chat({ api: apiOfChat, view, composer, connection, feedback, watcher });
    chat.catchUp().catch(tellProblem);
    return chat;
  });
  const sidebar = setUpSidebar(api, conversations);
  setUpHead(conversations, sidebar, composer);
  byId("examples").append(...exampleButtons(examples(), (text) => conversations.current?.send(text)));
  await Promise.race([sidebar.refresh(), new Promise((wake) => setTimeout(wake, MAX_WAIT_MS))]);
  conversations.start(sidebar);
  setUpKeys(conversations, sidebar);
  const look = () => {
    if (document.visibilityState !== "visible") return;
    conversations.current.catchUp().then(hideProblem, tellProblem);
    sidebar.refresh();
  };
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pageshow", (event) => event.persisted && look());
  conversations.current.restoreUnsent(JSON.parse(tabStorage.getItem(UNSENT) ?? "[]"));
  window.addEventListener("pagehide", () =>
    tabStorage.setItem(UNSENT, JSON.stringify(conversations.current.unsent)),
  );
  composer.takeFocus();
}

function setUpSidebar(api, conversations) {
  return new Sidebar(
    {
      sidebar: byId("sidebar"),
      shade: byId("sidebar-shade"),
      openButton: byId("sidebar-button"),
      closeButton: byId("sidebar-close"),
      headNewButton: byId("new-button"),
      newButton: byId("sidebar-new"),
      search: byId("sidebar-search"),
      list: byId("sidebar-entries"),
      none: byId("sidebar-none"),
      problem: byId("sidebar-problem"),
      moreButton: byId("sidebar-more"),
      importButton: byId("sidebar-import"),
      file: byId("sidebar-file"),
      deleteDialog: byId("delete-dialog"),
      deleteText: byId("delete-text"),
      deleteCancel: byId("delete-cancel"),
      deleteConfirm: byId("delete-confirm"),
    },
    api,
    {
      open: (id) => conversations.open(id),
      startNew: () => conversations.startNew(),
      removed: (id) => conversations.removed(id),
    },
    storageOf("localStorage"),
  );
}

/** Escape stops; Ctrl+Shift+O starts anew, Ctrl+K searches, Ctrl+B shows the list, Alt+Up and Alt+Down go along it. */
function setUpKeys(conversations, sidebar) {
  const isBlocked = () => document.querySelector("dialog[open]") !== null;
  const go = (step) => {
    const entry = sidebar.neighbour(step);
    if (entry) conversations.open(entry.id);
  };
  const acts = {
    "Ctrl+Shift+o": () => conversations.startNew(),
    "Ctrl+k": () => sidebar.startSearch(),
    "Ctrl+b": () => sidebar.toggle(),
    "Alt+ArrowUp": () => go(-1),
    "Alt+ArrowDown": () => go(1),
  };
  document.addEventListener("keydown", (event) => {
    if (isBlocked()) return;
    if (isCancelKey(event) && conversations.current.running) return conversations.current.stop();
    const act = acts[keysOf(event)];
    if (!act || !sidebar.hasLists) return;
    event.preventDefault();
    act();
  });
}

function keysOf({ ctrlKey, metaKey, shiftKey, altKey, key }) {
  const names = [(ctrlKey || metaKey) && "Ctrl", altKey && "Alt", shiftKey && "Shift"].filter(Boolean);
  return [...names, key.length === 1 ? key.toLowerCase() : key].join("+");
}

function setUpHead(conversations, sidebar, composer) {
  setUpTheme(byId("theme-button"), storageOf("localStorage"));
  const newConversation = new NewConversation(
    { dialog: byId("new-dialog"), confirm: byId("new-confirm"), save: byId("new-save"), cancel: byId("new-cancel") },
    () => conversations.current,
    composer,
    tellProblem,
  );
  byId("new-button").addEventListener("click", () =>
    sidebar.hasLists ? conversations.startNew() : newConversation.ask(),
  );
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
    () => conversations.current.api,
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
setUp().catch(tellProblem);
