"""The pages on writing a store, a prompt class and a request handler: their programs run as they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from chatstream_flask import AbstractChatPrompt, ChatStream
from chatstream_flask.errors import ConversationBusy, StoreUnavailable

DOCS = Path(__file__).parents[2] / "docs"


@contextmanager
def programs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """All Python of a page, one block after the other, in an empty folder."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "app", "__file__": str(folder / "app.py")}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    try:
        yield names
    finally:
        if "chat_stream" in names:
            names["chat_stream"].engine.stop()


# -- writing-a-store.md


def test_the_store_keeps_what_was_saved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs("writing-a-store.md", tmp_path, monkeypatch) as names:
        store = names["FolderStore"](tmp_path / "made")
        name, record = "../a b/日本\x00", {"v": 1, "text": "日本 \U0001f600 \x00 \"'"}
        assert store.load(name) is None
        lease = store.hold(name)
        with pytest.raises(ConversationBusy):
            store.hold(name)
        assert lease.save({"v": 0}) and lease.save(record)
        lease.close()
        lease.close()
        assert not lease.save({"v": 2})
        assert store.load(name) == names["FolderStore"](tmp_path / "made").load(name) == record
        assert [path.parent for path in (tmp_path / "made").iterdir()] == [tmp_path / "made"]
        assert store.purge() == 0


def test_a_deleted_conversation_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs("writing-a-store.md", tmp_path, monkeypatch) as names:
        store = names["FolderStore"](tmp_path / "made")
        lease = store.hold("a")
        store.delete("a")
        store.delete("a")
        new = store.hold("a")
        assert not lease.save({"v": 1})
        lease.close()
        assert new.save({"v": 2}) and store.load("a") == {"v": 2}
        new.close()


def test_a_store_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs("writing-a-store.md", tmp_path, monkeypatch) as names:
        store = names["FolderStore"](tmp_path / "made")
        (tmp_path / "made" / "a.json").mkdir()
        lease = store.hold("a")
        with pytest.raises(StoreUnavailable):
            lease.save({})
        with pytest.raises(StoreUnavailable):
            store.load("a")
        lease.close()


def test_the_app_uses_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with programs("writing-a-store.md", tmp_path, monkeypatch) as names:
        app, chat_stream = names["app"], names["chat_stream"]
        assert isinstance(app, Flask) and isinstance(chat_stream, ChatStream)
        client = app.test_client()
        for _ in range(2):
            assert client.post("/chat_stream", json={"user_input": "Hi", "max_new_tokens": 1}).text
        folder = tmp_path / "conversations"
        (listed,) = folder.glob("chatstream-list*")
        (kept,) = set(folder.iterdir()) - {listed}
        assert kept.read_text(encoding="utf-8").count('"Hi"') == 2


# -- writing-a-prompt-class.md


def rendered(prompt: AbstractChatPrompt, message: str = "Hello") -> str:
    prompt.build_initial_prompt(prompt)
    prompt.add_requester_msg(message)
    prompt.add_responder_msg(None)
    return prompt.create_prompt()


def test_the_prompt_classes_write_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "writing-a-prompt-class.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)
    with programs("writing-a-prompt-class.md", tmp_path, monkeypatch) as names:
        guide, script, support = (names[name]() for name in ("GuidePrompt", "ScriptPrompt", "SupportPrompt"))
        assert rendered(guide) == shown
        assert guide.get_final_stop_strs() == ["Visitor:"]
        assert rendered(script) == "Q: Hello\nA:"
        support.build_initial_prompt(support)
        assert support.num_initial == 2 and support.get_turn() == 0
        assert "harbour museum" in support.system


# -- conversations.md, models.md


def test_the_handler_names_a_conversation_for_each_ticket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with programs("conversations.md", tmp_path, monkeypatch) as names:
        app = Flask("tickets", instance_path=str(tmp_path / "instance"))
        app.config["CHATSTREAM_COOKIE_SECURE"] = False
        chat_stream: ChatStream = names["chat_stream"]
        chat_stream.init_app(app)

        @app.post("/tickets/<ticket>/chat_stream")
        @app.post("/chat_stream")
        def chat(ticket: str | None = None) -> Any:
            from flask import request

            return chat_stream.handle_chat_stream_request(request)

        client = app.test_client()
        body = {"user_input": "Hi", "max_new_tokens": 1}
        assert client.post("/tickets/7/chat_stream", json=body).text
        assert client.post("/chat_stream", json=body).status_code == 400
