"""The chat page in a real browser: everything that users do, and what may go wrong."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Request, redirect, request, session
from flask_wtf import CSRFProtect
from selenium.common.exceptions import JavascriptException
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from suite_size import IS_FULL
from tcp_proxy import TCPProxy
from tool_chat import call, tool_chat
from werkzeug.wrappers import Response as BaseResponse

from chatstream_flask import ChatStream, ReplyContext, SimpleSessionRequestHandler
from chatstream_flask.mock.phrases import LONG, ROUND
from chatstream_flask.views import create_chat_blueprint
from chatstream_flask.webui.page import create_webui_blueprint

from .browser import chromium, log_of
from .client import EVENTS, TIMEOUT_SEC, Visitor, wait_until
from .page import Page, start_site
from .server import Server
from .threaded_server import served

pytestmark = pytest.mark.server

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}
LONG_WORDS = " ".join(LONG.split())
ONE_PLACE = ["--num-of-concurrent-executions", "1", "--max-queue-size", "1", "--max-new-tokens", "600"]
ROOMY = ["--context-len", "100000", "--max-new-tokens", "5000"]  # each character is a token of the mock

MARKDOWN = """\
# Fibonacci numbers

Each number is the **sum** of the two before it. In Python:

```python
from functools import lru_cache

@lru_cache
def fib(n: int) -> int:
    \"\"\"The n-th Fibonacci number.\"\"\"
    return n if n < 2 else fib(n - 1) + fib(n - 2)  # 0, 1, 1, 2, 3
```

| n | fib(n) |
|--:|-------:|
| 10 | 55 |
| 20 | 6765 |

1. It is *fast*, because of `lru_cache`
2. It is [well known](https://example.org/fibonacci)
   - and old

- [x] seen

> **「フィボナッチ数」**は、前の二つの数の和です。花の花びらの数にもよく現れます。

各項は前の二項の和なので、計算は簡単です。
"""

NASTY = [
    "<script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    "<svg onload='window.hurt = 1'><animate onbegin='window.hurt = 1' attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.hurt = 1</script>'></iframe>",
    "[click](javascript:window.hurt=1)",
    "[click](&#106;avascript:window.hurt=1)",
    "[click](JaVaScRiPt&colon;window.hurt=1)",
    "[click](data:text/html,<script>opener.hurt=1</script>)",
    "[click](vbscript:hurt)",
    "[click](/clear_context)",
    "![x](https://example.org/pixel.png)",
    "![x](javascript:window.hurt=1)",
    '![x](https://example.org/"onerror="window.hurt=1)',
    '[x](https://example.org "onmouseover=window.hurt=1 \\"x")',
    "<a href='javascript:window.hurt=1' onclick='window.hurt=1'>x</a>",
    "<style>* { display: none }</style><link rel=stylesheet href=https://example.org/x.css>",
    "<form action=https://example.org><input name=q><button>x</button></form>",
    "<base href=https://example.org/><meta http-equiv=refresh content='0;url=https://example.org'>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hurt=1>",
    "```html\n<script>window.hurt = 1</script>\n```",
    '```"><img src=x onerror=window.hurt=1>\ncode\n```',
    "`<img src=x onerror=window.hurt=1>`",
    "<https://example.org/?a=<script>window.hurt=1</script>>",
    "<!--<img src='--><img src=x onerror=window.hurt=1>'>",
    "| <img src=x onerror=window.hurt=1> |\n|--|\n| <b onmouseover=window.hurt=1>x</b> |",
    "<details open ontoggle=window.hurt=1><summary>x</summary></details>",
]


class TicketHandler(SimpleSessionRequestHandler):
    """Names the conversation itself, so there are no lists."""

    def get_conversation_id(self, request: Request) -> str:
        return f"ticket:{super().get_conversation_id(request)}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@contextmanager
def site_of(tmp_path_factory: pytest.TempPathFactory, name: str, *options: str) -> Iterator[Server]:
    with start_site(tmp_path_factory.mktemp(name), *options) as server:
        yield server


@pytest.fixture(scope="module")
def demo_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--temperature", "0", "--num-of-generation-threads", "1"]
    with site_of(tmp_path_factory, "demo", *options) as server:
        yield server


@pytest.fixture(scope="module")
def long_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock with one slot and one waiting place, whose replies take some seconds."""
    options = ["--mock", "long", "--mock-seconds-per-token", "0.015", *ONE_PLACE]
    with site_of(tmp_path_factory, "long", *options) as server:
        yield server


@pytest.fixture(scope="module")
def echo_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock that echoes each message."""
    options = ["--mock", "echo", "--mock-seconds-per-token", "0", *ROOMY]
    with site_of(tmp_path_factory, "echo", *options) as server:
        yield server


@pytest.fixture
def visit(browser: Chrome) -> Iterator[Any]:
    """Return `visit(site)`, which opens its page as a new visitor; the browser must log no error."""
    yield lambda site, languages="en": new_visitor(browser, site.port, languages)
    for page in browser.window_handles[1:]:
        browser.switch_to.window(page)
        browser.close()
    browser.switch_to.window(browser.window_handles[0])
    hosts = "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)"
    assert set(browser.execute_script(hosts)) <= {browser.execute_script("return location.host")}
    complaints = [entry["message"] for entry in log_of(browser) if is_complaint(entry)]
    assert complaints == []


def new_visitor(browser: Chrome, port: int, languages: str, path: str = "") -> Page:
    page = Page(browser, port, path)
    user_agent = browser.execute_script("return navigator.userAgent")
    settings = {"userAgent": user_agent, "acceptLanguage": languages}
    browser.execute_cdp_cmd("Network.setUserAgentOverride", settings)
    browser.get(page.url + "chatstream_ui/0/icon.svg")  # a resource of the site without scripts
    browser.delete_all_cookies()
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    page.open()
    return page


def is_complaint(entry: dict[str, Any]) -> bool:
    """Return whether this is an error of the page; failed requests are part of the tests."""
    is_about_network = entry["source"] == "network"
    return entry["level"] in ("SEVERE", "WARNING") and not is_about_network


def cookies_of(page: Page) -> dict[str, str]:
    return {cookie["name"]: cookie["value"] for cookie in page.browser.get_cookies()}


def conversation_of(page: Page) -> dict[str, Any]:
    answer = requests.get(page.url + "conversation", cookies=cookies_of(page), timeout=TIMEOUT_SEC)
    return dict(answer.json())


@contextmanager
def others(site: Server, number: int) -> Iterator[None]:
    """Let this many other visitors have running or waiting replies."""
    with ExitStack() as stack:
        for _ in range(number):
            visitor = stack.enter_context(Visitor(site.port))
            stack.enter_context(visitor.post("Hello!", accept=EVENTS))
        yield


def wait_until_idle(site: Server) -> None:
    def is_idle() -> bool:
        load = requests.get(f"http://127.0.0.1:{site.port}/get_load", timeout=TIMEOUT_SEC).json()
        return all(worker["processing"] == worker["waiting"] == 0 for worker in load["chatstream_workers"])

    wait_until(is_idle)


# -- a conversation -----------------------------------------------------------------------------------------


def test_a_conversation_remembers_a_name(demo_site: Server, visit: Any) -> None:
    page = visit(demo_site)
    assert page.find("#greeting").text == "What would you like to talk about?"
    page.click("My name is Hanako.")
    page.wait_for_words(1)
    page.wait_until_ended()
    assert "Hanako" in page.ask("What is my name?")
    assert not page.has("#welcome")
    page.open()
    page.wait(lambda: len(page.replies) == 2)
    assert page.questions == ["My name is Hanako.", "What is my name?"]
    assert "Hanako" in page.replies[1]


def test_japanese(demo_site: Server, visit: Any) -> None:
    page = visit(demo_site, "ja,en")
    assert page.script("return document.documentElement.lang") == "ja"
    assert page.find("#greeting").text == "何について話しましょうか？"
    page.ask("私の名前は花子です。")
    assert "花子" in page.ask("私の名前は何ですか？")
    page.click("この返信の数値")
    assert "トークン/秒" in page.find(".turn:last-child .details").text


def test_enter_during_a_conversion_does_not_send(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site, "ja")
    page.type("にほんご")
    for composing in ({"isComposing": True}, {"keyCode": 229}):
        enter = "arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ...arguments[1]}))"
        page.script(enter, page.find("#composer-area"), composing)
    page.press(Keys.SHIFT, Keys.ENTER, Keys.NULL, "二行目")
    assert page.draft == "にほんご\n二行目"
    assert page.questions == []
    page.press(Keys.ENTER)
    page.wait(lambda: page.replies == ["にほんご二行目"])  # with a line break in between
    assert page.draft == ""


def test_stop_keeps_what_was_said(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    page.say("Tell me a story.")
    page.wait_for_words(5)
    page.click("Stop")
    page.wait_until_ended()
    assert page.texts(".note") == ["This reply was interrupted."]
    (_, kept) = conversation_of(page)["messages"]
    assert kept["is_interrupted"]
    assert kept["text"].split() == page.replies[0].split()
    page.open()
    page.wait(lambda: page.texts(".note") == ["This reply was interrupted."])


def test_reasoning_is_folded_away_and_ends_when_the_answer_is_wanted(tmp_path: Path, visit: Any) -> None:
    answer = ROUND[0].removeprefix("1. ")  # Markdown draws the number
    site = start_site(tmp_path, "--mock", "reasoning", "--mock-seconds-per-token", "0.1")
    with site:
        page = visit(site)
        page.say("Hello")
        page.wait(lambda: len("".join(page.texts(".reasoning-text")).split()) >= 3)
        assert "Reasoning, " in page.texts(".reasoning summary")[0]
        assert not page.has(".reasoning-text")
        page.click("Answer now")
        page.wait_until_ended()
        assert page.replies == [answer]
        page.wait(lambda: page.texts(".reasoning summary")[0].startswith("Reasoned for "))
        (_, kept) = conversation_of(page)["messages"]
        assert (kept["text"], kept["reasoning"]) == (ROUND[0], page.texts(".reasoning-text")[0])
        page.open()
        page.wait(lambda: page.replies == [answer])
        assert page.texts(".reasoning-text") == [kept["reasoning"]]
        page.find(".reasoning summary").click()
        assert page.has(".reasoning-text")
        page.click("Settings")
        page.wait(lambda: page.has("#setting-enable_thinking"))
        assert not page.has("#setting-reasoning_effort")
        Select(page.find("#setting-enable_thinking")).select_by_visible_text("off")
        page.click("Save")
        page.wait(lambda: not page.has("dialog"))
        page.ask("Hello")
        (*_, kept) = conversation_of(page)["messages"]
        assert kept["text"] and "reasoning" not in kept


def family_names() -> list[str]:
    if not IS_FULL:
        return ["Qwen3", "QwQ", "gpt-oss"]
    from families import FAMILIES

    return list(FAMILIES)


@pytest.mark.parametrize("name", family_names())
def test_reasoning_and_calls_of_real_families_are_folded_away(
    tmp_path: Path, browser: Chrome, name: str
) -> None:
    # Importing it takes seconds, in every worker of `pytest -n`.
    from families import FAMILIES, FamilyRunner, add_weather, family_chat

    family = FAMILIES[name]
    with family_chat(tmp_path, name) as chat:
        assert isinstance(chat.runner, FamilyRunner)
        add_weather(chat, name)
        chat.app.register_blueprint(create_webui_blueprint(), url_prefix="/page")
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/page")
        with served(chat.app) as port:
            page = new_visitor(browser, port, "en", "page/")
            chat.runner.script = family.reasoning + family.answer
            assert page.ask("2 + 2?") == "It is 4."
            assert page.texts(".reasoning-text") == (["Hm."] if family.reasoning else [])
            chat.runner.script = family.reasoning + family.call
            assert page.ask("How is Paris?") == "It is 4."
            for _ in ("as it came", "as it was kept"):
                assert page.texts(".step summary") == ["weather: done"]
                assert page.texts(".step pre") == ['{\n  "city": "Paris"\n}', "Warm in Paris."]
                assert not page.has(".step pre, .reasoning-text")
                page.open()
                page.wait(lambda: page.replies == ["It is 4."] * 2)
            browser.get("about:blank")


def test_calls_ask_their_visitor_and_sources_and_refusals_are_shown(tmp_path: Path, browser: Chrome) -> None:
    def write(prompt: str) -> str:
        newest = prompt.rpartition("<|user|>")[2]
        return "Paid [1]." if newest.startswith("<tool_response>") else call("pay", euros=7)

    with tool_chat(tmp_path, write) as chat:

        @chat.chat_stream.tool(confirm=True)
        def pay(euros: int) -> str:
            """Pay."""
            return f"{euros} euros are paid"

        @chat.chat_stream.before_reply
        def check(reply: ReplyContext) -> None:
            if "free" in reply.user_input:
                reply.refuse("Nothing is free here.")
            reply.add_source("Price list", "7 euros", url="/prices")
            reply.add_source("A note", url="javascript:alert(1)")

        chat.app.register_blueprint(create_webui_blueprint(), url_prefix="/api")
        with served(chat.app) as port:
            page = new_visitor(browser, port, "en", "api/")
            page.say("Pay")
            page.wait(lambda: page.texts(".step summary") == ["pay: may it be called?"])
            page.click("Allow")
            page.wait_until_ended()
            for _ in ("as it came", "as it was kept"):
                assert page.replies == ["Paid [1]."]
                assert page.texts(".step summary") == ["pay: done"]
                assert page.texts(".step pre")[-1] == "7 euros are paid"
                assert page.texts(".sources li") == ["Price list", "A note"]
                links = "return [...document.querySelectorAll('.sources a')].map((link) => link.pathname)"
                assert page.script(links) == ["/prices"]
                page.open()
                page.wait(lambda: page.replies)
            page.say("Is it free?")
            page.wait(lambda: page.failure == "Nothing is free here.")
            browser.get("about:blank")


def test_escape_stops_and_a_reply_that_never_began_gives_the_question_back(
    long_site: Server, visit: Any
) -> None:
    page = visit(long_site)
    with others(long_site, 1):
        page.say("Me too!")
        page.wait(lambda: "You are next" in "".join(page.texts(".status")))
        page.press(Keys.ESCAPE)
        page.wait_until_ended()
        assert page.failure == "Stopped before the reply began."
        page.click("Edit", ".failure")
        assert page.draft == "Me too!"
        assert page.questions == []
    wait_until_idle(long_site)


def test_regenerate_replaces_the_last_reply(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("One")
    page.ask("Two")
    before = conversation_of(page)["messages"]
    page.click("Regenerate")
    page.wait(lambda: conversation_of(page)["messages"][3]["message_id"] != before[3]["message_id"])
    page.wait_until_ended()
    assert page.replies == ["One", "Two"]
    assert page.focus == "Your message"
    assert conversation_of(page)["messages"][:3] == before[:3]
    assert len(conversation_of(page)["messages"]) == 4


def test_a_turn_is_edited_and_what_came_after_it_goes(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    for text in ("One", "Two", "Three"):
        page.ask(text)
    page.click("Edit", ".turn:nth-child(2)")
    page.press(Keys.END, " and a half", Keys.ENTER)
    page.wait(lambda: page.replies == ["One", "Two and a half"] and not page.is_running)
    assert [m["text"] for m in conversation_of(page)["messages"]] == ["One"] * 2 + ["Two and a half"] * 2
    page.click("Edit", ".turn:nth-child(1)")
    page.press(" not", Keys.ESCAPE)
    assert page.questions == ["One", "Two and a half"]
    assert page.focus == "Edit"


def test_messages_and_code_are_copied(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    copied = "return navigator.clipboard.readText()"
    page.ask("Try this:\n\n```sh\necho **hi**\n```")
    page.click("Copy", ".reply")
    page.wait(lambda: page.module(copied) == "Try this:\n\n```sh\necho **hi**\n```")
    page.click("Copy code")
    page.wait(lambda: page.module(copied).strip() == "echo **hi**")


def test_a_site_without_lists_asks_before_a_conversation_is_lost(tmp_path: Path, browser: Chrome) -> None:
    chat_stream = ChatStream(
        use_mock_response=True,
        mock_params={"type": "echo", "time_per_token_sec": 0.0},
        request_handler=TicketHandler(),
    )
    app = Flask("host", instance_path=str(tmp_path))
    app.config.from_mapping(SECRET_KEY="a secret", CHATSTREAM_STORE="memory://")
    chat_stream.append_apis(app, {"all": True})
    try:
        with served(app) as port:
            page = new_visitor(browser, port, "en")
            page.click("New conversation")
            assert not page.has("dialog")  # there is nothing to lose yet
            page.ask("Keep me")
            page.click("New conversation")
            assert page.focus == "Cancel"
            page.press(Keys.ENTER)
            assert page.replies == ["Keep me"]
            page.click("New conversation")
            page.click("Start new")
            page.wait(lambda: page.has("#welcome"))
            assert conversation_of(page)["messages"] == []
            assert page.focus == "Your message"
            assert not page.has("#sidebar-button")
            browser.get("about:blank")
    finally:
        chat_stream.close()


# -- many conversations -------------------------------------------------------------------------------------


def titles(page: Page) -> list[str]:
    return page.texts(".sidebar-title")


def ask_in_new(page: Page, text: str) -> None:
    page.click("New conversation")
    page.wait(lambda: page.has("#welcome"))
    page.ask(text)
    page.wait(lambda: text in titles(page))


def three_conversations(site: Server, visit: Any) -> Page:
    page: Page = visit(site)
    resize(page, "desktop")
    page.ask("Whales")
    page.wait(lambda: titles(page) == ["Whales"])
    for text in ("Dolphins", "日本の首都"):
        ask_in_new(page, text)
    page.open()
    page.wait(lambda: page.has("#sidebar"))
    assert titles(page) == ["日本の首都", "Dolphins", "Whales"]
    return page


def open_conversation(page: Page, title: str) -> None:
    page.find(f".sidebar-entry[title='{title}']").click()
    page.wait(lambda: page.replies == [title])


def test_conversations_are_switched_also_by_address_and_keys(echo_site: Server, visit: Any) -> None:
    page = three_conversations(echo_site, visit)
    page.wait(lambda: page.replies == ["日本の首都"])  # the newest one
    open_conversation(page, "Whales")
    whales = page.browser.current_url
    page.ask("And krill?")
    page.wait(lambda: titles(page) == ["Whales", "日本の首都", "Dolphins"])
    page.browser.back()
    page.wait(lambda: page.has("#welcome"))
    page.browser.forward()
    page.wait(lambda: page.replies == ["Whales", "And krill?"])
    page.press(Keys.ALT, Keys.ARROW_DOWN, Keys.NULL)
    page.wait(lambda: page.replies == ["日本の首都"])
    page.press(Keys.CONTROL, Keys.SHIFT, "o", Keys.NULL)
    page.wait(lambda: page.has("#welcome") and page.focus == "Your message")
    page.press(Keys.CONTROL, "k", Keys.NULL)
    assert page.focus == "Search conversations"
    page.press("首都")
    page.wait(lambda: titles(page) == ["日本の首都"])
    page.press("x")
    page.wait(lambda: page.has("#sidebar-none") and titles(page) == [])
    page.press(Keys.CONTROL, "b", Keys.NULL)
    page.wait(lambda: not page.has("#sidebar") and page.focus == "Show the conversations")
    page.browser.get(whales)
    page.wait(lambda: page.replies == ["Whales", "And krill?"])
    assert not page.has("#sidebar")  # as it was left


def test_conversations_are_renamed_pinned_deleted_and_imported(
    echo_site: Server, visit: Any, tmp_path: Path
) -> None:
    page = three_conversations(echo_site, visit)
    page.click("More for “Whales”", ".sidebar")
    page.click("Pin", ".sidebar")
    page.wait(lambda: titles(page) == ["Whales", "日本の首都", "Dolphins"])
    page.click("More for “Dolphins”", ".sidebar")
    page.click("Rename", ".sidebar")
    page.press("Porpoises", Keys.ENTER)
    page.wait(lambda: titles(page) == ["Whales", "日本の首都", "Porpoises"])
    page.click("More for “Porpoises”", ".sidebar")
    link = page.find(".sidebar-act[href$='.json']").get_property("href")
    saved = tmp_path / "saved.json"
    saved.write_bytes(requests.get(str(link), cookies=cookies_of(page), timeout=TIMEOUT_SEC).content)
    page.click("Delete", ".sidebar")
    assert page.focus == "Cancel" and "Porpoises" in page.find("#delete-dialog").text
    page.click("Delete", "#delete-dialog")
    page.wait(lambda: titles(page) == ["Whales", "日本の首都"])
    page.script("document.getElementById('sidebar-file').hidden = false")
    page.find("#sidebar-file").send_keys(str(saved))
    page.wait(lambda: titles(page) == ["Whales", "Porpoises", "日本の首都"] and page.replies == ["Dolphins"])
    saved.write_text("not a conversation", encoding="utf-8")
    page.find("#sidebar-file").send_keys(str(saved))
    page.wait(lambda: page.texts("#sidebar-problem") == ["This is not a saved conversation."])
    page.click("More for “Porpoises”", ".sidebar")
    page.click("Delete", ".sidebar")
    page.click("Delete", "#delete-dialog")
    page.wait(lambda: page.has("#welcome") and page.replies == [])


def test_a_conversation_that_another_tab_deleted(echo_site: Server, visit: Any) -> None:
    page = three_conversations(echo_site, visit)
    open_conversation(page, "Whales")
    (first,) = [entry for entry in listed(page) if entry["title"] == "Whales"]
    url = f"{page.url}conversations/{first['id']}"
    assert requests.delete(url, cookies=cookies_of(page), timeout=TIMEOUT_SEC).status_code == 204
    page.say("Are you there?")
    page.wait(lambda: page.failure == "This conversation was deleted, perhaps in another tab.")
    page.wait(lambda: titles(page) == ["日本の首都", "Dolphins"])
    page.script("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait(lambda: page.has("#welcome") and page.draft == "Are you there?")


def listed(page: Page) -> list[dict[str, Any]]:
    answer = requests.get(page.url + "conversations", cookies=cookies_of(page), timeout=TIMEOUT_SEC)
    return list(answer.json()["conversations"])


def test_a_reply_goes_on_while_another_conversation_is_read(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    resize(page, "desktop")
    page.say("Tell me a story.")
    page.wait_for_words(3)
    page.click("Stop")
    page.wait_until_ended()
    page.wait(lambda: titles(page) == ["Tell me a story."])
    page.click("New conversation")
    page.wait(lambda: page.has("#welcome"))
    page.say("And another one.")
    page.wait_for_words(3)
    page.click("Show the conversations")
    page.find(".sidebar-entry[title='Tell me a story.']").click()
    page.wait(lambda: page.questions == ["Tell me a story."])
    assert not page.is_running
    page.browser.back()
    page.wait(lambda: page.questions == ["And another one."] and page.is_running)
    page.wait_for_words(8)
    page.press(Keys.ESCAPE)
    page.wait_until_ended()
    page.wait(lambda: "And another one." in titles(page))


def test_on_a_phone_the_conversations_are_a_drawer(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    resize(page, "phone")
    page.ask("Whales")
    ask_in_new(page, "Dolphins")
    assert not page.has("#sidebar")
    page.click("Show the conversations")
    page.wait(lambda: page.focus == "New conversation" and page.has("#sidebar-shade"))
    assert page.script("return document.querySelector('main').inert")
    page.press(Keys.ESCAPE)
    assert page.focus == "Show the conversations" and not page.has("#sidebar")
    page.click("Show the conversations")
    open_conversation(page, "Whales")
    assert not page.has("#sidebar")
    assert page.script("return document.documentElement.scrollWidth <= innerWidth")


def test_feedback(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("Hello")

    def pressed(name: str) -> str:
        return str(page.find(f".reply [aria-label='{name}']").get_attribute("aria-pressed"))

    page.click("Good reply")
    page.wait(lambda: pressed("Good reply") == "true")
    page.click("Bad reply")
    page.wait(lambda: (pressed("Good reply"), pressed("Bad reply")) == ("false", "true"))
    page.open()
    page.wait(lambda: page.replies == ["Hello"])
    assert pressed("Bad reply") == "true"
    assert "feedback:" in echo_site.output


def test_settings_hold_for_the_conversation(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.click("Settings")
    field = page.find("#setting-max_new_tokens")
    page.wait(lambda: field.get_attribute("value") == "5000")
    assert not page.has("#setting-enable_thinking, #setting-max_reasoning_tokens")
    field.clear()
    field.send_keys("2")
    page.find("#setting-top_k").clear()
    page.script("arguments[0].value = 0.5", page.find("#setting-temperature"))
    page.click("Save")
    page.wait(lambda: not page.has("dialog"))
    assert page.ask("one two three") == "one two"
    assert page.texts(".note") == ["This reply ended at its greatest length."]
    page.script("arguments[0].value = ''", field)  # so that the next wait is for the server's answer
    page.click("Settings")
    page.wait(lambda: field.get_attribute("value") == "2")
    assert page.find("#setting-temperature").get_attribute("value") == "0.5"
    assert page.find("#setting-top_k").get_attribute("value") == ""
    page.script("arguments[0].value = 6000", field)
    page.click("Save")
    page.wait(lambda: "5000" in page.find("#settings-problem").text)
    page.click("Reset")
    page.wait(lambda: field.get_attribute("value") == "5000")
    page.press(Keys.ESCAPE)
    assert page.ask("one two three") == "one two three"


def test_settings_that_arrive_late_leave_what_a_quick_user_typed(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.script("""
        const send = window.fetch;
        const released = new Promise((release) => (window.release = release));
        window.fetch = async (url, options) => {
          const answer = await send(url, options);
          if (String(url).endsWith("/get_generation_params")) await released;
          return answer;
        };""")
    page.click("Settings")
    field = page.find("#setting-max_new_tokens")
    field.send_keys("2")
    page.click("Save")
    page.script("window.release()")
    page.wait(lambda: not page.has("dialog"))
    assert page.ask("one two three") == "one two"
    assert page.find("#setting-temperature").get_attribute("value") == "1"  # the others came


def test_figures_on_demand(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("one two three")
    assert not page.has(".details")
    page.click("Figures of this reply")
    assert "3 tokens" in page.find(".details").text
    assert "first token after" in page.find(".details").text


def test_a_conversation_beyond_the_context_says_so(tmp_path: Path, visit: Any) -> None:
    options = ["--temperature", "0", "--num-of-generation-threads", "1", "--context-len", "60"]
    with start_site(tmp_path, *options, "--max-new-tokens", "20") as site:
        page = visit(site)
        page.ask("My name is Hanako.")
        page.ask("What is the capital of Japan?")
        page.ask("Count from 1 to 3.")
        assert "its oldest" in page.texts(".note")[-1]
        page.say("Hello! " * 50)
        page.wait(lambda: page.failure == "This message is too long for the model.")
        assert page.questions[-1] == "Hello! " * 50
        page.open()  # so that what follows is of this site


# -- reloads, tabs, lost connections ------------------------------------------------------------------------


def test_a_reload_in_mid_reply_goes_on(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    page.say("Tell me a story.")
    page.wait_for_words(20)
    page.type("A draft")
    page.open()
    page.wait_for_words(20)
    assert page.is_running
    assert page.questions == ["Tell me a story."]
    page.wait_until_ended()
    assert " ".join(page.replies[0].split()) == LONG_WORDS
    assert page.draft == "A draft"


def test_two_tabs_of_one_conversation(long_site: Server, visit: Any) -> None:
    first = visit(long_site)
    first.say("From the first tab")
    first.wait_for_words(3)
    tabs = [first.browser.current_window_handle]
    first.browser.switch_to.new_window("tab")
    tabs.append(first.browser.current_window_handle)
    second = Page(first.browser, long_site.port)
    second.open()
    second.wait_for_words(3)
    assert second.is_running and second.questions == ["From the first tab"]
    second.click("Stop")
    second.wait_until_ended()
    said = second.replies
    first.browser.switch_to.window(tabs[0])
    first.wait_until_ended()
    assert first.texts(".note") == ["This reply was interrupted."]
    assert first.replies == said
    first.browser.switch_to.window(tabs[1])
    second.say("From the second tab")
    second.wait_for_words(3)
    second.press(Keys.ESCAPE)
    second.wait_until_ended()
    first.browser.switch_to.window(tabs[0])
    first.script("document.dispatchEvent(new Event('visibilitychange'))")  # as if hidden before
    first.wait(lambda: first.questions == ["From the first tab", "From the second tab"])


def test_first_messages_of_two_tabs_at_once_are_of_one_conversation(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    refusals, running = page.module("""
        const { Api } = await load("api.js");
        const tabs = [1, 2].map(() => new Api({ csrfToken: null, isKnown: false }));
        const sent = await Promise.allSettled(tabs.map((tab, i) => tab.ask({ user_input: `${i}` })));
        const { running } = await tabs[0].conversation();
        for (const { value } of sent) if (value) await tabs[0].cancel(value.messageId);
        return [sent.map(({ reason }) => reason?.code ?? null), running.user_input];""")
    assert refusals == [None, "conversation_busy"]  # the second knew the session of the first
    assert running == "0"


def test_what_the_server_told_before_a_turn_is_out_of_date(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("One")
    page.script("""
        const send = window.fetch;
        window.held = [];
        window.fetch = async (url, options) => {
          const answer = await send(url, options);
          if (/\\/conversation(\\?|$)/.test(url)) await new Promise((goOn) => window.held.push(goOn));
          return answer;
        };""")
    look = "document.dispatchEvent(new Event('visibilitychange')); return held.length === 1"
    page.wait(lambda: page.script(look))  # a look that began before the script would swallow the event
    page.ask("Two")
    page.script("held.shift()()")
    page.wait(lambda: page.script("return held.length === 1"))  # it asks again
    assert page.replies == ["One", "Two"]
    page.script("held.shift()()")
    assert page.ask("Three") == "Three"
    assert page.questions == ["One", "Two", "Three"]


def test_a_reply_that_another_device_waits_for(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    page.say("From here")
    page.wait_for_words(2)
    page.press(Keys.ESCAPE)
    page.wait_until_ended()
    with Visitor(long_site.port) as other:
        other.session.cookies.update(cookies_of(page))
        with other.post("From there", accept=EVENTS):
            page.say("From here again")
            page.wait(lambda: "Another tab or device" in page.failure)
            page.click("Watch it")
            page.wait(lambda: page.is_running)
            page.wait_for_words(3)
            assert page.questions == ["From here", "From there", "From here again"]
            page.press(Keys.ESCAPE)
            page.wait_until_ended()
    page.click("Send again")
    page.wait(lambda: page.questions == ["From here", "From there", "From here again"] and page.is_running)
    page.wait_for_words(2)
    page.press(Keys.ESCAPE)
    page.wait_until_ended()
    assert not page.failure


def test_a_cut_connection_goes_on_at_the_right_character(long_site: Server, visit: Any) -> None:
    proxy = TCPProxy(long_site.port)
    try:
        page = visit(proxy)
        page.say("Tell me a story.")
        for num_words in (10, 60):
            page.wait_for_words(num_words)
            with proxy.cut():
                page.wait(lambda: page.has("#connection"))
                assert "connection is lost" in page.find("#connection-text").text
            page.click("Try now")
            page.wait(lambda: not page.has("#connection"))
        page.wait_until_ended()
        assert " ".join(page.replies[0].split()) == LONG_WORDS
    finally:
        page.browser.get(f"http://127.0.0.1:{long_site.port}/")
        proxy.close()


def test_a_server_that_is_away_loses_no_text(echo_site: Server, visit: Any) -> None:
    proxy = TCPProxy(echo_site.port)
    try:
        page = visit(proxy)
        page.ask("Hello")
        with proxy.cut():
            page.say("Do not lose me")
            page.wait(lambda: "could not be reached" in page.failure)
            page.wait(lambda: page.has("#connection"))
        page.click("Try now")
        page.wait(lambda: not page.has("#connection"))
        page.click("Send again")
        page.wait(lambda: page.replies == ["Hello", "Do not lose me"])
        assert page.questions == ["Hello", "Do not lose me"]
    finally:
        page.browser.get(f"http://127.0.0.1:{echo_site.port}/")
        proxy.close()


def test_a_host_that_protects_against_forged_requests(tmp_path: Path, browser: Chrome) -> None:
    """The CSRF token expires and the page fetches another one; then the login expires."""
    chat_stream = ChatStream(use_mock_response=True, mock_params={"type": "echo", "time_per_token_sec": 0.0})
    app = Flask("host", instance_path=str(tmp_path))
    app.config.from_mapping(SECRET_KEY="a secret", CHATSTREAM_STORE="memory://")
    csrf = CSRFProtect(app)
    is_login_over = threading.Event()
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream), url_prefix="/chat")

    def run_out() -> str:
        session.pop("csrf_token")
        return ""

    app.post("/run_out")(csrf.exempt(run_out))
    app.get("/login")(lambda: "Who are you?")

    @app.before_request
    def check_login() -> BaseResponse | None:
        is_asked = request.path == "/chat/chat_stream" and is_login_over.is_set()
        return redirect("/login") if is_asked else None

    try:
        with served(app) as port:
            page = new_visitor(browser, port, "en", "chat/")
            assert page.ask("One") == "One"
            page.module("await fetch('/run_out', { method: 'POST' })")
            assert page.ask("Two") == "Two"
            assert not page.failure
            is_login_over.set()
            page.say("Three")
            page.wait(lambda: "You are signed out" in page.failure)
            assert page.questions == ["One", "Two", "Three"]
            browser.get("about:blank")
    finally:
        chat_stream.close()


def test_a_full_server_is_told_in_words_with_a_way_on(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    with others(long_site, 2):
        page.say("Is there a place?")
        page.wait(lambda: "All places are taken right now." in page.failure)
        page.open()
        page.wait(lambda: page.failure == "This was not sent.")
        assert page.questions == ["Is there a place?"]
    wait_until_idle(long_site)
    page.click("Send again")
    page.wait_for_words(3)
    assert page.questions == ["Is there a place?"]
    page.click("Stop")
    page.wait_until_ended()


def test_a_killed_server_that_comes_back(tmp_path: Path, visit: Any) -> None:
    options = ["--mock", "long", "--mock-seconds-per-token", "0.05", *ONE_PLACE]
    with start_site(tmp_path, *options) as site:
        page = visit(site)
        page.say("First")
        page.wait_for_words(2)
        page.click("Stop")
        page.wait_until_ended()
        page.say("Second")
        page.wait_for_words(2)
        site.kill()
        page.wait(lambda: page.has("#connection"))
    with start_site(tmp_path, *options, port=site.port):
        page.wait(lambda: "restarted before this reply was finished" in page.failure)
        assert page.questions == ["First", "Second"]
        page.click("Send again")
        page.wait(lambda: not page.failure and page.is_running)
        page.wait_for_words(2)
        page.press(Keys.ESCAPE)
        page.wait_until_ended()
        assert [m["text"] for m in conversation_of(page)["messages"][::2]] == ["First", "Second"]


# -- keys and screen readers --------------------------------------------------------------------------------


def test_everything_is_done_with_the_keyboard_alone(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    assert page.focus == "Your message"
    page.script("document.querySelector('.skip').focus()")  # the first on the page
    order = [page.focus]
    for _ in range(9):
        page.press(Keys.TAB)
        order.append(page.focus)
    head = ["Skip to the message field", "Show the conversations", "New conversation"]
    head += ["Settings", "Colours: as the system"]
    examples = page.texts(".example")
    assert len(examples) == 4
    assert order == [*head, *examples, "Your message"]
    page.press("One", Keys.ENTER)
    page.wait(lambda: page.replies == ["One"] and not page.is_running)
    assert page.focus == "Your message"
    back: list[str] = []
    while back[-1:] != ["Edit"]:
        assert len(back) < 10
        page.press(Keys.SHIFT, Keys.TAB, Keys.NULL)
        back.append(page.focus)
    assert back == [
        "Figures of this reply",
        "Bad reply",
        "Good reply",
        "Regenerate",
        "Copy",
        "Copy",
        "Edit",
    ]
    page.press(Keys.ENTER)
    assert page.focus == "Edit your message"
    page.press(" more", Keys.ENTER)
    page.wait(lambda: page.replies == ["One more"] and not page.is_running)


def test_screen_readers_hear_whole_blocks(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("The first paragraph.\n\nThe second one.")
    heard = page.texts("#announcements[role=log][aria-live=polite] p")
    assert [text for text in heard if "paragraph" in text or "one" in text] == [
        "The first paragraph.",
        "The second one.",
    ]
    assert page.texts(".turn h2") == ["You said", "Reply"]
    unnamed = """
        return [...document.querySelectorAll("button, textarea, input")]
          .filter((field) => field.checkVisibility() && !field.textContent.trim())
          .filter((field) => !field.getAttribute("aria-label") && !field.labels?.length).length"""
    assert page.script(unnamed) == 0
    page.click("Settings")
    assert page.script(unnamed) == 0


def test_the_colours_are_chosen_and_kept(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.script(ground)
    page.click("Colours: as the system")
    page.click("Colours: light")
    dark = page.script(ground)
    assert dark != light
    page.open()
    assert page.script(ground) == dark
    page.click("Colours: dark")
    assert page.script(ground) == light


def test_the_page_follows_only_who_is_at_its_end(long_site: Server, visit: Any) -> None:
    page = visit(long_site)
    resize(page, "phone")
    at_end = "const {scrollHeight: h, scrollTop: t, clientHeight: c} = scroller; return h - t - c < 60"
    page.say("Tell me a story.")
    page.wait_for_words(150)
    assert page.script(at_end)
    page.script("scroller.scrollTop = 0")
    page.wait(lambda: page.has("#down-button"))
    page.wait_for_words(200)
    assert page.script("return scroller.scrollTop") == 0
    page.click("To the newest message")
    assert page.script(at_end)
    page.press(Keys.ESCAPE)
    page.wait_until_ended()
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# -- what a model writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ja"])
def test_nothing_that_a_user_or_a_model_writes_runs(echo_site: Server, visit: Any, language: str) -> None:
    page = visit(echo_site, language)
    for text in ("\n\n".join(NASTY), "\n".join(reversed(NASTY))):
        page.ask(text)
    assert page.questions[0] == "\n\n".join(NASTY)
    assert page.script("return window.hurt ?? null") is None
    inside = "return [...document.querySelectorAll('#turns .prose *')].map((e) => e.tagName.toLowerCase())"
    allowed = (
        "a blockquote br button code del div em h3 h4 h5 h6 hr kbd li ol p pre span strong sub sup svg use"
    )
    assert set(page.script(inside)) <= {*allowed.split(), "table", "tbody", "td", "th", "thead", "tr", "ul"}
    attributes = """
        return [...document.querySelectorAll("#turns .prose :not(.code-head *)")]
          .flatMap((e) => [...e.attributes].map((a) => a.name))"""
    assert set(page.script(attributes)) <= {
        "align",
        "class",
        "href",
        "rel",
        "start",
        "tabindex",
        "target",
        "title",
    }
    links = page.script("return [...document.querySelectorAll('.prose a[href]')].map((a) => a.outerHTML)")
    assert links
    for link in links:
        assert re.search(r'href="(https?|mailto):', link)
        assert 'rel="noopener noreferrer nofollow"' in link and 'target="_blank"' in link
    page.open()
    page.wait(lambda: len(page.replies) == 2)
    assert page.script("return window.hurt ?? null") is None


def test_the_policy_stands_behind_it(echo_site: Server, browser: Chrome) -> None:
    """The Content Security Policy holds even if all else failed; here the browser must log errors."""
    page = new_visitor(browser, echo_site.port, "en")
    with pytest.raises(JavascriptException, match="TrustedScript"):
        page.script("document.createElement('script').text = 'window.hurt = 1'")
    with pytest.raises(JavascriptException, match="TrustedHTML"):
        page.script("document.body.innerHTML = '<img src=x onerror=window.hurt=1>'")
    with pytest.raises(JavascriptException, match="TrustedScript"):
        page.script("document.body.setAttribute('onclick', 'window.hurt = 1')")
    page.script("new Image().src = 'https://example.org/pixel.png'")
    page.wait(lambda: any("img-src" in entry["message"] for entry in log_of(browser)))
    assert page.script("return window.hurt ?? null") is None


def test_markdown_looks_the_same_however_it_comes(echo_site: Server, visit: Any) -> None:
    """It is rendered block by block while it streams, and in one go after a reload."""
    page = visit(echo_site)
    texts = [
        MARKDOWN,
        *NASTY,
        "- a\n\n- b\n\n\n1. c\n\n2. d",
        "a [link][1]\n\nb\n\n[1]: https://example.org/",
    ]
    texts += [
        "| a |\n|---|\n| b |\n\nc",
        "x\n===\n\n    code\n\n~~~\nopen",
        "> a\nb\n\nc  \nd",
        "- a\n  - b\n\n    c\nd",
    ]
    differing = page.module(
        """
        const { StreamingMarkdown, drawMarkdown } = await load("streaming_markdown.js");
        const plain = (container) => container.innerHTML.replace(/<span class="hljs[^>]*>|<\\/span>/g, "");
        const differing = [];
        for (const text of args[0]) {
          for (const length of [1, 3, 7, 50]) {
            const [whole, grown] = [document.createElement("div"), document.createElement("div")];
            drawMarkdown(whole, text);
            const streaming = new StreamingMarkdown(grown);
            for (let at = 0; at < text.length; at += length) {
              streaming.push(text.slice(at, at + length));
              streaming.draw();
            }
            streaming.end();
            if (plain(whole) !== plain(grown)) differing.push([text, length, plain(whole), plain(grown)]);
          }
        }
        return differing;""",
        texts,
    )
    assert differing == []


def test_no_markdown_overflows_the_stack_or_freezes_the_page(echo_site: Server, visit: Any) -> None:
    """Deep quotes ended with an error, and emphasis that never ends took half a minute."""
    page = visit(echo_site)
    texts = [mark * 2000 + "a" for mark in ("> ", "- ", "1. ", "> - ")]
    texts += [mark * 10_000 for mark in ("_a*", "*a_", "_a", "**あ*", "`a*", "[", "![a](", "<a@")]
    texts += ["a" + " " * 50_000 + "b"]
    times = page.module(
        """
        const { StreamingMarkdown, drawMarkdown } = await load("streaming_markdown.js");
        const times = {};
        for (const text of args[0]) {
          const began = performance.now();
          const container = document.createElement("div");
          drawMarkdown(container, text);
          const streaming = new StreamingMarkdown(document.createElement("div"));
          streaming.push(text);
          streaming.end();
          if (!container.textContent) throw new Error("nothing is left of " + text.slice(0, 10));
          times[text.slice(0, 10)] = performance.now() - began; // milliseconds
        }
        return times;""",
        texts,
    )
    assert max(times.values()) < 5000, times
    nested = "> " * 10 + "- " * 10 + "**deep**"
    page.module('(await load("streaming_markdown.js")).drawMarkdown(document.body, args[0])', nested)
    assert page.texts("blockquote li strong") == ["deep"]


def test_markdown_of_japanese(echo_site: Server, visit: Any) -> None:
    page = visit(echo_site)
    page.ask("これは**「強調」**です。2**3**4 も")
    assert page.texts(".prose strong") == ["「強調」", "3"]


# -- pictures -----------------------------------------------------------------------------------------------


def resize(page: Page, size: str, *, is_dark: bool = False) -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = {"prefers-color-scheme": "dark" if is_dark else "light", "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@pytest.mark.parametrize("size", SIZES)
def test_pictures(echo_site: Server, visit: Any, tmp_path: Path, size: str) -> None:
    """The screenshots are for humans; the test only checks that nothing is wider than the window."""
    folder = Path(os.environ.get("CHATSTREAM_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = visit(echo_site, "en" if size != "tablet" else "ja,en")

    def shoot(name: str) -> None:
        for scheme in ("light", "dark"):
            resize(page, size, is_dark=scheme == "dark")
            too_wide = "return document.documentElement.scrollWidth > innerWidth"
            assert not page.script(too_wide), f"{name} {size}"
            assert page.browser.save_screenshot(str(folder / f"{name}-{size}-{scheme}.png"))

    shoot("empty")
    page.ask("どうして空は青いの？")
    page.ask(MARKDOWN)
    page.wait(lambda: page.has(".hljs-keyword"))
    shoot("long")
    page.find("#settings-button").click()
    page.wait(lambda: page.find("#setting-top_k").get_attribute("value") == "50")
    shoot("settings")
    page.press(Keys.ESCAPE)
    if not page.has("#sidebar"):
        page.find("#sidebar-button").click()
    page.find(".sidebar-row button").click()
    shoot("conversations")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
