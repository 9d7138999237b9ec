"""docs/moving-from-chatstream.md: its snippets run, its names exist, nothing of ChatStream is left out."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
from flask import Flask
from transformers import AutoTokenizer

import chatstream_flask
import chatstream_flask.prompts as prompts
import chatstream_flask.prompts.presets as presets
from chatstream_flask import AbstractChatPrompt, ChatStream, SimpleSessionRequestHandler, demo_model
from chatstream_flask.chat.chat_request import FIELDS
from chatstream_flask.cli.cli import cli
from chatstream_flask.conversation.urls import make_store
from chatstream_flask.prompts import ChatContent, RoleType
from chatstream_flask.serving.app import create_app
from chatstream_flask.settings import Settings
from chatstream_flask.views import API_NAMES
from chatstream_flask.views.chat_api import Options

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "moving-from-chatstream.md").read_text(encoding="utf-8")
PAGE_JA = (DOCS / "moving-from-chatstream_ja.md").read_text(encoding="utf-8")

CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
SIMPLE, INTERCEPT, CALLBACK, SESSION, HANDLER, COOKIE, APIS, PROMPT = range(8)
BLOCKS = [code for language, code in CODE_BLOCK.findall(PAGE) if language == "python"]

CONSTRUCTOR = [  # of the ancestor
    *["name", "model", "tokenizer", "token_sampler", "num_gpus", "device", "num_of_concurrent_executions"],
    *["max_queue_size", "too_many_request_as_http_error", "use_mock_response", "mock_params"],
    *["chat_prompt_clazz", "max_new_tokens", "context_len", "temperature", "top_k", "top_p"],
    *["repetition_penalty", "repetition_penalty_method", "add_special_tokens", "request_handler", "logger"],
    *["locale", "client_roles", "seed", "probe_mode_enabled"],
]
MIDDLEWARE = [
    *["secret_key", "store", "http_only", "secure", "same_site", "max_age", "session_cookie"],
    *["session_object", "skip_session_header", "logger"],
]
METHODS = [
    *["queue_worker", "start_queue_worker", "verify_role_for_api", "handle_chat_stream_request"],
    *["handle_clear_context_request", "handle_get_prompt_request", "handle_set_generation_params_request"],
    *["handle_get_generation_params_request", "handle_set_feedback_request", "handle_get_load_request"],
    *["handle_get_resource_usage_request", "index", "js", "handle_console_input", "append_apis"],
    *["append_middlewares", "process_request", "get_request_handler_type"],
]
PROMPT_METHODS = [
    *["set_system", "set_requester", "set_responder", "add_requester_msg", "add_responder_msg"],
    *["get_contents", "get_turn", "is_empty", "get_requester_last_msg", "get_responder_last_msg"],
    *["clear_last_responder_message", "remove_last_requester_msg", "remove_last_responder_msg"],
    *["set_responder_last_msg", "set_responder_last_msg_id", "find_chat_content_by_message_id"],
    *["set_chat_mode_enabled", "is_chat_mode_enabled", "is_requester_role", "replace_string"],
    *["get_skip_len", "get_custom_skip_echo_len", "get_replacement_when_input"],
    *["get_replacement_when_output", "from_dict", "to_dict", "get_stop_strs", "create_prompt"],
    *["build_initial_prompt", "set_prompt_ttl", "clear_history", "set_tokenizer"],
    *["set_prefix_as_stop_str_enabled", "_get_final_stop_strs", "get_role", "get_message", "set_message"],
    *["get_message_id", "set_message_id"],
]
OTHER = [
    *["chat_stream", "clear_context", "get_prompt", "set_generation_params", "get_generation_params"],
    *["set_feedback", "get_load", "get_resource_usage", "webui_index", "webui_js", "web_ui_params"],
    *["include", "exclude", "all", "fast_session", "develop_mode", "cors", "allow_origins", "allow"],
    *["auth_method", "ui_pass_phrase", "ui_pass_phrase_sha256", "header_phrase", "header_phrase_sha256"],
    *["use_session", "enable_dev_tool", "initial_wait_sec", "time_per_token_sec", "round", "echo", "long"],
    *["success", "client_disconnected_before_streaming", "client_disconnected_while_streaming"],
    *["unknown_error_occurred", "too_many_requests", "EOS", "LoadTime", "load_hf_model", "ChatStreamPool"],
    *["X-ChatStream-Last-Generated-Message-Id", "MemoryStore", "MockTransformer", "TokenSamplerHft"],
]
WORDS = {  # in a "here" column, and no names of ours: Flask's, other programs', and words on the wire
    *["X-Request-Id", "error", "detail", "done", "Accept: text/event-stream", "application/problem+json"],
    *["flask.session", "session.clear()", "session.permanent = True", "supports_credentials=True"],
    *[
        "eos_token_id",
        "generation_config",
        "-c python:chatstream_flask.serving.gunicorn_conf",
        "clear_context",
    ],
}


# -- the page as tables and blocks


def here_cells(page: str) -> Iterator[tuple[str, str]]:
    """Each row of a table that has such a column, and what it says there."""
    is_here = None
    for line in CODE_BLOCK.sub("", page).splitlines():
        if not line.startswith("|"):
            is_here = None
        elif is_here is None:
            header = [cell.strip() for cell in line.strip("|").split(" |")]
            is_here = next((i for i, cell in enumerate(header) if cell == "here"), -1)
        elif is_here >= 0 and not line.startswith("|-"):
            cells = [cell.strip() for cell in line.strip("|").split(" |")]
            assert len(cells) == 3, line
            yield line, cells[is_here]


HERE = [(line, span) for line, cell in here_cells(PAGE) for span in CODE.findall(cell)]


# -- every name exists


@pytest.fixture(scope="module")
def roots() -> dict[str, Any]:
    return {
        "chat_stream": ChatStream(use_mock_response=True),
        "prompt": presets.ChatPromptDatabricksDolly(),
        "content": ChatContent(RoleType.REQUESTER, "hi"),
        "handler": SimpleSessionRequestHandler(),
        **vars(chatstream_flask),
        **vars(prompts),
        **{name: getattr(presets, name) for name in presets.__all__},
    }


def command_options() -> set[str]:
    command = cli.commands["serve"]
    options = [option for option in command.params if isinstance(option, click.Option)]
    return {name for option in options for name in option.opts}


def routes() -> set[str]:
    app = Flask("routes")
    app.register_blueprint(chatstream_flask.views.create_chat_blueprint(ChatStream(use_mock_response=True)))
    return {f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods or ()}


def is_there(span: str, roots: dict[str, Any]) -> bool:
    """Whether a name in backticks is something that our code, or Flask's config, has."""
    name = re.sub(r"\(.*\)$", "", span)
    if name.startswith("CHATSTREAM_"):
        return name in {f"CHATSTREAM_{field.name.upper()}" for field in fields(Settings)}
    if re.fullmatch("[A-Z_]+", name):
        return name in Flask("x").config
    if match := re.fullmatch(r"(\w+)=", name):
        return match[1] in inspect.signature(ChatStream.__init__).parameters
    if name.startswith("--"):
        return name in command_options()
    if match := re.fullmatch("flask chatstream ([a-z-]+)", name):
        return match[1] in cli.commands
    if re.fullmatch("(GET|POST) /.*", name):
        return name in routes()
    if "://" in name:
        make_store(name, 1.0)  # raises for a wrong one
        return True
    if name in FIELDS or name in API_NAMES or name in {field.name for field in fields(Options)}:
        return True
    if name.startswith("chatstream_flask."):
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    root, *path = name.split(".")
    if root not in roots:
        return False
    thing = roots[root]
    for attribute in path:
        if not hasattr(thing, attribute):
            return False
        thing = getattr(thing, attribute)
    return True


def test_every_name_in_a_here_column_exists(roots: dict[str, Any]) -> None:
    assert len(HERE) > 120
    assert [line for line, span in HERE if span not in WORDS and not is_there(span, roots)] == []


@pytest.mark.parametrize(
    "span",
    [
        "chat_stream.handle_feedback()",
        "num_gpus=",
        "CHATSTREAM_SECRET",
        "SESSION_COOKIE_HTTP_ONLY",
        "prompt.get_skip_len()",
        "chatstream_flask.views.create_web_page",
        "--cookie",
        "POST /get_load",
        "webui_index",
        "flask chatstream shell",
        "ChatPromptOpenCalm",
        "top_k_value",
    ],
)
def test_a_name_that_does_not_exist_is_found_out(span: str, roots: dict[str, Any]) -> None:
    assert not is_there(span, roots)


def test_words_that_are_used_no_more_are_deleted() -> None:
    assert {span for _, span in HERE} >= WORDS


@pytest.mark.parametrize("page", [PAGE, PAGE_JA], ids=["en", "ja"])
def test_nothing_of_chatstream_is_left_out(page: str) -> None:
    tables = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    spans = " ".join(CODE.findall(tables)) + tables
    names = [*METHODS, *PROMPT_METHODS, *OTHER, *presets.__all__]
    assert [name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", spans)] == []


@pytest.mark.parametrize("page", [PAGE, PAGE_JA], ids=["en", "ja"])
@pytest.mark.parametrize(
    ("header", "names"),
    [("| `ChatStream(...)` |", CONSTRUCTOR), ("| `FastSessionMiddleware(...)` |", MIDDLEWARE)],
    ids=["constructor", "middleware"],
)
def test_every_parameter_has_a_row(page: str, header: str, names: list[str]) -> None:
    table = page[page.index(header) :].split("\n\n", 1)[0]
    first_cells = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert [name for name in names if name not in first_cells] == []


def test_links_inside_the_page_lead_somewhere() -> None:
    for page in (PAGE, PAGE_JA):
        titles = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", page), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert [anchor for anchor in re.findall(r"\]\(#(.*?)\)", page) if anchor not in anchors] == []
        for name in re.findall(r"\]\(([\w-]+\.md)\)", page):
            assert (DOCS / name).exists()


def test_the_japanese_page_says_the_same() -> None:
    """The same blocks, and in each row of a table the same code."""

    def tables(page: str) -> list[list[str]]:
        lines = [line for line in CODE_BLOCK.sub("", page).splitlines() if line.startswith("|")]
        return [sorted(CODE.findall(line)) for line in lines]

    assert CODE_BLOCK.findall(PAGE_JA) == CODE_BLOCK.findall(PAGE)
    assert tables(PAGE_JA) == tables(PAGE)
    assert [len(h) for h in re.findall("^#+", PAGE_JA, re.M)] == [
        len(h) for h in re.findall("^#+", PAGE, re.M)
    ]


# -- every block runs


@contextmanager
def program(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Run a block as a file of its own; at the end wait for all replies and callbacks."""
    monkeypatch.chdir(folder)
    path = folder / "app.py"
    path.write_text(code, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "app", "__file__": str(path)}
    exec(compile(code, str(path), "exec"), names)
    try:
        yield names
    finally:
        if "chat_stream" in names:
            names["chat_stream"].engine.stop()


def ask(names: dict[str, Any], user_input: str = "Hello!", **headers: str) -> Any:
    return names["app"].test_client().post("/chat_stream", json={"user_input": user_input}, headers=headers)


def test_all_blocks_are_tested() -> None:
    assert len(BLOCKS) == PROMPT + 1


def test_simple_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with program(BLOCKS[SIMPLE], tmp_path, monkeypatch) as names:
        answer = ask(names)
        events = ask(names, Accept="text/event-stream")
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        assert re.search('event: done\ndata: {"finish_reason": "(stop|length)"', events.text)


def test_reading_the_request_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with program(BLOCKS[INTERCEPT], tmp_path, monkeypatch) as names:
        client = names["app"].test_client()
        assert client.post("/chat_stream", json={"user_input": "  hi  "}).text == "hi"
        answer = client.post("/chat_stream", json={"user_input": None, "regenerate": True})
        assert (answer.text, caplog.messages.count("once more")) == ("hi", 1)
        for body in ("[1]", "null", "{}", '"x"', "{"):
            answer = client.post("/chat_stream", data=body, content_type="application/json")
            assert answer.status_code == 400
        assert client.post("/chat_stream", json={"user_input": "x" * 200_000}).status_code == 413


def test_the_body_may_be_bytes_str_or_dict(tmp_path: Path) -> None:
    chat_stream = ChatStream(
        use_mock_response=True, mock_params={"type": "echo", "time_per_token_sec": 0}, max_queue_size=9
    )
    app = create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path), "CHATSTREAM_MAX_BODY_LEN": 10})
    try:
        for body in (b'{"user_input": "bytes"}', '{"user_input": "str"}', {"user_input": "dict"}):
            with app.test_request_context("/chat_stream", method="POST") as context:
                answer = chat_stream.handle_chat_stream_request(context.request, body)
                assert answer.get_data(as_text=True) in ("bytes", "str", "dict")
    finally:
        chat_stream.close()


def test_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with program(BLOCKS[CALLBACK], tmp_path, monkeypatch) as names:
        assert ask(names).text == "Hello!"
        assert ask(names, "").status_code == 400  # refused: no callback
    assert capsys.readouterr().out == "/chat_stream finished\n"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("client_disconnected_before_streaming", "left before the first word"),
        ("client_disconnected_while_streaming", "left during the reply"),
        ("unknown_error_occurred", "failed"),
    ],
)
def test_callback_of_a_reply_that_is_cut(
    message: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The mock is made slow, or never begins."""
    slow = BLOCKS[CALLBACK].replace('"time_per_token_sec": 0', '"time_per_token_sec": 0.01')
    if "before" in message:
        slow = slow.replace('{"type"', '{"initial_wait_sec": 60, "type"')
    with program(slow, tmp_path, monkeypatch) as names:
        events = {"Accept": "text/event-stream"}
        answer = ask(names, "word " * 1000, **events)
        chunks = answer.iter_encoded()
        while b"event: " + (b"start" if "before" in message else b"text") not in next(chunks):
            pass
        if "disconnected" in message:
            answer.close()
        else:
            names["chat_stream"].engine.stop()
            answer.close()
    assert capsys.readouterr().out == f"/chat_stream {line}\n"


def test_session_in_the_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with program(BLOCKS[SESSION], tmp_path, monkeypatch) as names:
        client = names["app"].test_client()
        client.get("/login/Ann")
        assert client.post("/chat_stream", json={"user_input": "Good morning"}).text == "Good morning"
        assert ask(names, "Who am I?").status_code == 200
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "Ann success Good morning Good morning",
        "nobody success Who am I? Who am I?",
    ]


def test_request_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with program(BLOCKS[HANDLER], tmp_path, monkeypatch) as names:
        own = {"X-Api-Key": "read it from the environment", "X-Conversation": "42"}
        answer = ask(names, "first", **own)
        assert (answer.text, answer.headers.get("Set-Cookie")) == ("first", None)
        assert ask(names, "second", **own).text == "second"
        chat_stream: ChatStream = names["chat_stream"]
        for conversation, num_turns in (("42", 2), ("43", 0)):
            headers = own | {"X-Conversation": conversation}
            with names["app"].test_request_context(headers=headers) as context:
                assert chat_stream.get_chat_prompt(context.request).get_turn() == num_turns
        refused = ask(names, "third", **{"X-Api-Key": "guessed", "X-Conversation": "42"})
        assert (refused.status_code, refused.get_json()["error"]) == (403, "forbidden")
        assert ask(names, "third", **{"X-Api-Key": own["X-Api-Key"]}).status_code == 400


def test_cookie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with program(BLOCKS[COOKIE], tmp_path, monkeypatch) as names:
        cookie = SimpleCookie(ask(names).headers["Set-Cookie"])["sid"]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"], cookie["path"]) == (
        True,
        True,
        "Strict",
        "/",
    )
    assert cookie["expires"]


def test_a_damaged_cookie_begins_a_new_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also: without a lifetime it ends with the browser, and SameSite is Lax."""
    with program(BLOCKS[SESSION], tmp_path, monkeypatch) as names:
        client = names["app"].test_client()
        name = client.application.config["SESSION_COOKIE_NAME"]
        client.set_cookie(name, "garbage")
        answer = client.post("/chat_stream", json={"user_input": "hi"})
        assert answer.status_code == 200
        cookie = SimpleCookie(answer.headers["Set-Cookie"])[name]
        assert (cookie["samesite"], cookie["expires"], cookie["max-age"]) == ("Lax", "", "")


def test_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with program(BLOCKS[APIS], tmp_path, monkeypatch) as names:
        client = names["app"].test_client()
        assert "<title>Harbour</title>" in client.get("/").text
        answer = client.post("/chat_stream", json={"user_input": "Hi"})
        assert answer.text == "Hi"
        message_id = answer.headers["X-ChatStream-Last-Generated-Message-Id"]
        feedback = {"message_id": message_id, "is_like": True}
        assert client.post("/set_feedback", json=feedback).get_json()["success"] is True
        assert "like: True, of: Hi" in caplog.messages
        for name in names["FOR_OPERATORS"]:
            assert client.get(f"/{name}").status_code == 404
            assert client.get(f"/operators/{name}").status_code == 403
        with client.session_transaction() as kept_session:
            kept_session["is_operator"] = True
        assert unquote(client.get("/operators/get_prompt").get_json()["prompt"]).count("Hi") == 2
        for name in names["FOR_OPERATORS"]:
            assert client.get(f"/operators/{name}").get_json()["success"] is True


def test_what_is_said_of_the_apis(tmp_path: Path) -> None:
    """Their answers in full are in test_chat_api."""
    mock = {"type": "echo", "time_per_token_sec": 0}
    chat_stream = ChatStream(use_mock_response=True, mock_params=mock)
    app = create_app(
        chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path), "CHATSTREAM_COOKIE_SECURE": False}, exclude=()
    )
    client = app.test_client()

    def set_params(body: Any) -> Any:
        return client.post("/set_generation_params", data=json.dumps(body), content_type="application/json")

    try:
        assert set_params({"temperature": 0.5, "top_k_value": 7}).status_code == 200
        kept = set_params({"top_p_value": 0.9}).get_json()["generation_params"]
        assert kept.keys() >= {"temperature", "top_k_value", "top_p_value", "top_k", "top_p", "seed"}
        assert (kept["temperature"], kept["top_k_value"], kept["top_p_value"]) == (0.5, 7, 0.9)
        assert set_params(None).get_json()["generation_params"]["temperature"] == 1.0
        assert set_params({"top_p_value": 2}).status_code == 400
        assert client.post("/set_feedback", json={"is_like": True}).status_code == 400
        assert client.post("/set_feedback", json={"is_like": True, "message_id": "x"}).status_code == 404
        assert client.post("/chat_stream", json={"user_input": "Hi"}).text == "Hi"
        assert client.post("/clear_context").get_json()["success"] is True
        assert client.get("/get_prompt").get_json()["prompt"] is None
        assert client.post("/chat_stream", json={"user_input": "Hi again"}).text == "Hi again"
        with client.session_transaction() as session:
            assert len(session) == 1  # the conversation's id
            session.clear()
        assert client.get("/get_prompt").get_json()["prompt"] is None
    finally:
        chat_stream.close()


def test_prompt_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both say the same, turn by turn, as text and to a model."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model.PATH)
    with program(BLOCKS[PROMPT], tmp_path, monkeypatch) as names:
        moved, new = (conversation(names[name]) for name in ("MovedPrompt", "NewPrompt"))
    expected = (
        "A friendly talk.\nVisitor: Hi\nGuide: Hello, how can I help?\n"
        "Visitor: A <|im_end|>\nGuide: B\nVisitor: C\nGuide:"
    )
    for prompt in (moved, new):
        assert prompt.create_prompt() == expected
        assert prompt.get_final_stop_strs() == ["Visitor:"]
        assert prompt.get_turn() == 2
        assert type(prompt).from_dict(prompt.to_dict()).create_prompt() == expected
        ids = prompt.to_token_ids(tokenizer)
        assert tokenizer.decode(ids) == expected
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
        prompt.set_chat_mode_enabled(False)
        assert prompt.create_prompt() == "C"


def conversation(clazz: type[AbstractChatPrompt]) -> AbstractChatPrompt:
    prompt = clazz()
    prompt.build_initial_prompt(prompt)
    prompt.add_requester_msg("A <|im_end|>")
    prompt.add_responder_msg("B")
    prompt.add_requester_msg("C")
    prompt.add_responder_msg(None)
    return prompt


# -- what the tables say about requests and values


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": '{"user_input": "x"}'}, 400),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"json": ["x"]}, 400),
        ({"json": {}}, 400),
        ({"json": {"user_input": ""}}, 400),
        ({"json": {"user_input": 1}}, 400),
        ({"json": {"user_input": "x", "regenerate": "True"}}, 400),
        ({"json": {"user_input": "x", "regenerate": 1}}, 400),
        ({"json": {"user_input": "x", "regenerate": None}}, 400),
        ({"json": {"regenerate": True}}, 400),
        ({"json": {"user_input": "x", "temperature": 3}}, 400),
        ({"json": {"user_input": "x", "session_id": "1"}}, 400),
        ({"json": {"user_input": "x", "regenerate": False, "temperature": 0.1, "stop": "Y"}}, 200),
    ],
)
def test_bodies(body: dict[str, Any], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with program(BLOCKS[CALLBACK], tmp_path, monkeypatch) as names:
        answer = names["app"].test_client().post("/chat_stream", **body)
        assert answer.status_code == status
        if status != 200:
            assert answer.mimetype == "application/problem+json"
            assert {"error", "detail"} <= answer.get_json().keys()


@pytest.mark.parametrize(
    "given",
    [
        {"mock_params": {type: "round"}},
        {"mock_params": {"type": "poem"}},
        {"top_p": None},
        {"temperature": -1},
        {"repetition_penalty_method": "both"},
        {"device": "gpu"},
        {"use_mock_response": False},
    ],
)
def test_values_that_were_accepted_silently(given: dict[str, Any]) -> None:
    with pytest.raises(chatstream_flask.errors.ConfigError):
        ChatStream(**{"use_mock_response": True} | given)


def test_values_that_are_off() -> None:
    for top_k in (None, 0):
        ChatStream(use_mock_response=True, top_k=top_k, repetition_penalty=1.0, max_queue_size=0)
    assert presets.ChatPromptRinnaJpGptNeoxInstSft is presets.ChatPromptRinnaJapaneseGPTNeoxInst
