"""Turns are stored whole or not at all, in the right conversation, whatever happens meanwhile."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Request, current_app
from flask_fakes import (
    FAIL,
    BreakableStore,
    PlainPrompt,
    ScriptedRunner,
    add_routes,
    cookie_name,
    make_chat,
    messages,
    read_events,
    read_until,
    running_chat,
    say,
    stopping,
    talk,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatstream_flask import AbstractRequestHandler
from chatstream_flask.conversation import Conversation, ConversationStore
from chatstream_flask.conversation.record_json import from_json
from chatstream_flask.errors import BadRequest, StoreUnavailable
from chatstream_flask.views import create_chat_blueprint

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    keys=st.lists(st.integers(0, 99), max_size=5),
    value=JSON_VALUES,
    edits=st.dictionaries(st.integers(0), st.integers(0, 255), max_size=3),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_record_is_a_conversation_or_an_error_that_says_so(
    keys: list[int], value: Any, edits: dict[int, int]
) -> None:
    """Whatever part of it is replaced, and whatever bytes of its JSON change."""
    conversation = Conversation.begin(PlainPrompt)
    conversation.prompt.add_requester_msg("hi")
    conversation.prompt.add_responder_msg("hello")
    record: Any = {"record": conversation.to_record()}
    parent: Any = record
    key: Any = "record"
    for number in keys:
        if not (inner := parent[key]) or not isinstance(inner, (dict, list)):
            break
        parent, key = (
            inner,
            list(inner)[number % len(inner)] if isinstance(inner, dict) else number % len(inner),
        )
    parent[key] = value
    data = bytearray(json.dumps(record["record"]).encode())
    for at, byte in edits.items():
        data[at % len(data)] = byte
    with suppress(StoreUnavailable):
        Conversation.from_record(from_json(bytes(data)), PlainPrompt).prompt.get_contents()


def test_the_second_turn_sees_the_first(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: f"re{prompt.count('U:')}")) as chat:
        aki, ben = chat.client(), chat.client()
        assert talk(aki, "I am Aki") == "re1"
        assert talk(ben, "I am Ben") == "re1"
        assert talk(aki, "Who am I?") == "re2"
        assert chat.runner.prompts == ["U:I am Aki|A:", "U:I am Ben|A:", "U:I am Aki|A:re1|U:Who am I?|A:"]
        assert chat.history(aki) == ["I am Aki", "re1", "Who am I?", "re2"]
        assert chat.history(ben) == ["I am Ben", "re1"]
        assert chat.history(chat.client()) == []


def test_a_conversation_survives_a_restart(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client = chat.client()
        talk(client, "first")
        cookie = client.get_cookie(cookie_name(client))
        assert cookie is not None
    with running_chat(tmp_path) as chat:
        client = chat.client()
        client.set_cookie(cookie_name(client), cookie.value)
        talk(client, "second")
        assert chat.runner.prompts == ["U:first|A:ok|U:second|A:"]


def test_regenerate_replaces_the_last_reply(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner()) as chat:
        client = chat.client()
        chat.runner.reply = lambda prompt: "old"
        talk(client, "one")
        talk(client, "two")
        chat.runner.reply = lambda prompt: "new"
        assert talk(client, regenerate=True) == "new"
        assert chat.history(client) == ["one", "old", "two", "new"]
        assert chat.runner.prompts[1] == chat.runner.prompts[2] == "U:one|A:old|U:two|A:"


def test_a_failed_regenerate_keeps_the_old_reply(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client = chat.client()
        talk(client, "one")
        assert chat.word() == "success"
        chat.runner.reply = lambda prompt: f"ne{FAIL}"
        assert list(read_events(say(client, regenerate=True)))[-1].name == "error"
        assert chat.word() == "unknown_error_occurred"
        assert chat.history(client) == ["one", "ok"]
        chat.runner.is_held = True
        response = say(client, regenerate=True)
        response.close()
        assert chat.word() == "client_disconnected_before_streaming"
        assert chat.history(client) == ["one", "ok"]


def test_an_interrupted_reply_is_regenerated_or_gone_on_from(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner) as chat:
        client = chat.client()
        response = say(client, "one")
        runner.allow()
        read_until(read_events(response), "text")
        response.close()
        chat.word()
        assert chat.history(client) == ["one", "o~"]
        runner.release()
        assert talk(client, regenerate=True) == "ok"
        assert chat.history(client) == ["one", "ok"]


def test_clearing(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client, other = chat.client(), chat.client()
        talk(client, "one")
        talk(other, "other")
        response = client.post("/clear_context")
        assert response.get_json() == {"success": True, "message": "Context successfully cleared"}
        assert chat.history(client) == []
        assert client.post("/clear_context").status_code == 200
        assert talk(client, "two") == "ok"
        assert chat.runner.prompts[-1] == "U:two|A:"
        assert chat.history(other) == ["other", "ok"]


@pytest.mark.parametrize("ending", ["to its end", "cut off", "failing"])
def test_clearing_during_a_reply_keeps_nothing_of_it(tmp_path: Path, ending: str) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner) as chat:
        client = chat.client()
        response = say(client, "secret")
        events = read_events(response)
        runner.allow()
        read_until(events, "text")
        assert client.post("/clear_context").status_code == 200
        if ending == "cut off":
            response.close()
        elif ending == "failing":
            runner.reply = lambda prompt: f"o{FAIL}"
        runner.release()
        if ending != "cut off":
            assert [event.name for event in events][-1] in ("done", "error")
        chat.word()
        assert chat.history(client) == []
        runner.reply = lambda prompt: "ok"
        talk(client, "new")
        assert chat.history(client) == ["new", "ok"]


def test_a_second_request_of_a_conversation_is_refused_while_one_runs(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner) as chat:
        client = chat.client()
        runner.release()
        talk(client, "one")
        runner.is_held = True
        events = read_events(say(client, "two"))
        read_until(events, "start")
        for body in ({"user_input": "three"}, {"regenerate": True}):
            response = client.post("/chat_stream", json=body)
            assert response.status_code == 409
            assert response.content_type == "application/problem+json"
            assert response.get_json()["error"] == "conversation_busy"
        assert chat.chat_stream.engine.num_accepted == 1
        runner.release()
        read_until(events, "done")
        assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_right_after_done_the_turn_is_kept_and_the_way_is_free(tmp_path: Path) -> None:
    """When a client reads the end of a reply, the reply is stored already."""
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: "k")) as chat:
        client = chat.client()
        for i in range(30):
            read_until(read_events(say(client, str(i))), "done")
            assert len(chat.history(client)) == 2 * (i + 1)


# -- a store that fails ------------------------------------------------------------------------------


class StoreHandler(AbstractRequestHandler):
    """Take the conversation's id from a header, and its store from the app."""

    def __init__(self, store: ConversationStore) -> None:
        self.store = store

    def get_request_handler_type(self) -> str:
        return "header"

    def get_conversation_id(self, request: Request) -> str:
        if "X-User" not in request.headers:
            raise BadRequest("the header X-User is missing")
        return request.headers["X-User"]

    def get_store(self) -> ConversationStore:
        return self.store


def as_user(client: Any, path: str = "/chat_stream", **body: Any) -> Any:
    return client.post(path, json=body, headers={"X-User": "aki", "Accept": "text/event-stream"})


def history_of(store: BreakableStore, chat: Any) -> list[str | None]:
    data = store.load("aki")
    return [] if data is None else messages(Conversation.from_record(data, PlainPrompt).prompt)


def test_a_store_that_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = BreakableStore()
    with running_chat(tmp_path, request_handler=StoreHandler(store)) as chat:
        client = chat.client()
        read_until(read_events(as_user(client, user_input="one")), "done")
        store.can_load = store.can_save = False
        for path, body in (("/chat_stream", {"user_input": "two"}), ("/clear_context", {})):
            response = as_user(client, path, **body)
            assert response.status_code == 503
            assert response.content_type == "application/problem+json"
            assert response.get_json()["error"] == "store_unavailable"
            assert response.headers["Retry-After"] == "5"
            chat.check_idle()
        assert client.get("/history", headers={"X-User": "aki"}).status_code == 503
        store.can_load = store.can_save = True
        assert history_of(store, chat) == ["one", "ok"]
        read_until(read_events(as_user(client, user_input="three")), "done")
        assert chat.runner.prompts[-1] == "U:one|A:ok|U:three|A:"
    assert "the store is down" in caplog.text


def test_a_store_that_fails_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = BreakableStore()
    config = {"CHATSTREAM_STORE_RETRY_SEC": 0}
    with running_chat(tmp_path, config=config, request_handler=StoreHandler(store)) as chat:
        client = chat.client()
        read_until(read_events(as_user(client, user_input="one")), "done")
        assert chat.word() == "success"
        store.can_save = False
        *texts, error = list(read_events(as_user(client, user_input="two")))
        assert "".join(event.data.get("text", "") for event in texts) == "ok"
        message = "the reply could not be stored: the store is down"
        assert (error.name, error.data) == ("error", {"code": "store_unavailable", "message": message})
        assert chat.word() == "unknown_error_occurred"
        store.can_save = True
        assert history_of(store, chat) == ["one", "ok"]
        read_until(read_events(as_user(client, user_input="two")), "done")
        assert history_of(store, chat) == ["one", "ok", "two", "ok"]
    assert "could not be stored" in caplog.text


class StoreThatComesBack(BreakableStore):
    """A store whose next saves fail."""

    num_failures = 0

    def save(self, conversation_id: str, data: dict[str, Any]) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise StoreUnavailable("the store is down")
        super().save(conversation_id, data)


def test_a_reply_is_stored_when_the_store_comes_back_while_the_client_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = StoreThatComesBack()
    with running_chat(tmp_path, request_handler=StoreHandler(store)) as chat:
        store.num_failures = 2
        read_until(read_events(as_user(chat.client(), user_input="one")), "done")
        assert store.num_failures == 0
        assert history_of(store, chat) == ["one", "ok"]
        assert chat.word() == "success"
    assert caplog.text.count("could not be stored and is tried again for 5 s: the store is down") == 1


@pytest.mark.parametrize("data", [{"v": 99}, {}, {"v": 1}, {"v": 1, "contents": 5}, {"v": 2}])
def test_a_stored_conversation_of_another_kind(tmp_path: Path, data: dict[str, Any]) -> None:
    store = BreakableStore()
    store.save("aki", data)
    with running_chat(tmp_path, request_handler=StoreHandler(store)) as chat:
        response = as_user(chat.client(), user_input="hi")
        assert response.status_code == 503
        assert response.get_json()["error"] == "store_unavailable"
        chat.check_idle()
        assert store.load("aki") == data
        assert as_user(chat.client(), "/clear_context").status_code == 200
        read_until(read_events(as_user(chat.client(), user_input="hi")), "done")


def test_a_handler_may_refuse(tmp_path: Path) -> None:
    with running_chat(tmp_path, request_handler=StoreHandler(BreakableStore())) as chat:
        for path in ("/chat_stream", "/clear_context"):
            response = chat.client().post(path, json={"user_input": "hi"})
            assert response.status_code == 400
            assert response.get_json()["detail"] == "the header X-User is missing"
            chat.check_idle()


def test_two_apps_may_use_the_same_ids(tmp_path: Path) -> None:
    """Check that two apps with one ChatStream do not share conversations."""
    one, two = BreakableStore(), BreakableStore()

    class EachApps(StoreHandler):
        def get_store(self) -> ConversationStore:
            return {"one": one, "two": two}[current_app.config["WHICH"]]

    handler = EachApps(one)
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, {"WHICH": "one"}, request_handler=handler) as chat:
        other = make_chat(tmp_path, config={"WHICH": "two"}).app
        chat.chat_stream.init_app(other)
        other.register_blueprint(create_chat_blueprint(chat.chat_stream))
        events = read_events(as_user(chat.client(), user_input="hi"))
        read_until(events, "start")
        others = read_events(as_user(other.test_client(), user_input="ho"))
        assert as_user(other.test_client(), "/clear_context").status_code == 200
        runner.release()
        read_until(events, "done")
        read_until(others, "done")
        assert (list(one.data), list(two.data)) == (["aki"], [])


# -- too long ----------------------------------------------------------------------------------------


def test_the_oldest_turns_are_dropped_and_the_client_is_told(tmp_path: Path) -> None:
    with running_chat(tmp_path, context_len=60, max_new_tokens=20) as chat:  # 40 characters of prompt
        client = chat.client()
        for i in range(3):
            talk(client, f"{i}" * 9)
        assert chat.runner.prompts[-1] == "U:222222222|A:"  # with the turn before it: more than two thirds
        response = say(client, "4" * 35)
        done = read_until(read_events(response), "done")
        assert done.data["num_dropped_turns"] == 3
        assert response.headers["X-ChatStream-Truncated"] == "turns=3"
        assert chat.runner.prompts[-1] == f"U:{'4' * 35}|A:"
        assert chat.history(client) == ["0" * 9, "ok", "1" * 9, "ok", "2" * 9, "ok", "4" * 35, "ok"]


def test_a_turn_that_cannot_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with running_chat(tmp_path, context_len=60, max_new_tokens=20) as chat:
        client = chat.client()
        talk(client, "one")
        response = say(client, "x" * 36)
        assert response.status_code == 400
        problem = response.get_json()
        assert problem["error"] == "prompt_too_long"
        assert "41 tokens, but 40 are allowed: " in problem["detail"]
        assert problem["detail"].endswith(
            "; of the context's 60 tokens the reply keeps 20 tokens for the answer (max_new_tokens)"
        )
        chat.check_idle()
        assert chat.history(client) == ["one", "ok"]
        assert talk(client, "x" * 36, max_new_tokens=19) == "ok"


# -- stopping ----------------------------------------------------------------------------------------


def test_a_server_that_stops_ends_replies_and_refuses_new_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runner = ScriptedRunner(is_held=True)
    chat = make_chat(tmp_path, runner)
    with stopping(chat):
        chat.chat_stream.init_app(chat.app)
        add_routes(chat.app, chat)
        client = chat.client()
        events = read_events(say(client, "one"))
        runner.allow()
        read_until(events, "text")
        chat.chat_stream.engine.stop()
        assert list(events)[-1].data["finish_reason"] == "shutdown"
        assert chat.word() == "unknown_error_occurred"
        assert chat.history(client) == ["one", "o~"]
        response = say(client, "two")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        chat.chat_stream.start_queue_worker()
        runner.release()
        assert talk(client, "two") == "ok"


def test_a_kept_conversation_has_its_limits(tmp_path: Path) -> None:
    """Check that the limits apply to what is stored after the reply, not to what the model is shown."""
    with running_chat(tmp_path, config={"CHATSTREAM_MAX_TURNS": 2}) as chat:
        client = chat.client()
        for words in ("one", "two", "three"):
            talk(client, words)
        assert chat.history(client) == ["two", "ok", "three", "ok"]
        assert chat.runner.prompts[-1] == "U:one|A:ok|U:two|A:ok|U:three|A:"


def test_a_store_of_its_own_leaves_the_sessions_as_they_are(tmp_path: Path) -> None:
    config = {"CHATSTREAM_STORE": f"sqlite:///{tmp_path}/chat.db"}
    with running_chat(tmp_path, config=config) as chat:
        client = chat.client()
        refused = say(client, "one")
        assert (refused.status_code, refused.get_json()["error"]) == (503, "store_unavailable")
        assert "flask chatstream init-db" in refused.get_json()["detail"]
        chat.state.store.create_or_migrate()  # type: ignore[attr-defined]
        talk(client, "one")
        assert chat.history(client) == ["one", "ok"]
        assert client.get_cookie(cookie_name(client)) is not None
        chat.state.store.close()  # type: ignore[attr-defined]


def test_a_turn_that_another_process_took_over_is_not_called_done(tmp_path: Path) -> None:
    store = BreakableStore()
    with running_chat(tmp_path, ScriptedRunner(is_held=True), request_handler=StoreHandler(store)) as chat:
        events = read_events(as_user(chat.client(), user_input="one"))
        read_until(events, "start")
        store.leases.revoke("aki")  # as when this process was frozen for longer than its lease
        chat.runner.release()
        assert list(events)[-1].name == "error"
        assert chat.word() == "unknown_error_occurred"
        assert store.load("aki") is None
