"""Hooks do the same in every API."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from apis import APIS, QUESTION, Answer, every_api
from fakes import TIMEOUT
from flask import current_app, request, session
from flask_fakes import ScriptedRunner, parse_event, say
from prometheus_client import CollectorRegistry

from chatstream_flask import ReplyContext
from chatstream_flask.errors import ConfigError

TEXT = "I am Ann. My number is 555-0199, call me. Bye"
MESSAGES_ONLY = [name for name in APIS if name != "completions"]


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Any:
    return APIS[request.param]


def says(text: str) -> ScriptedRunner:
    return ScriptedRunner(lambda prompt: text)


def mask(reply: ReplyContext, text: str) -> str:
    return text.replace("555-0199", "***")


def test_on_text_changes_what_clients_get(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        chat.chat_stream.on_text(mask)
        assert api(chat.client()) == Answer(200, TEXT.replace("555-0199", "***"))


def test_before_reply_refuses_with_words(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path) as chat:

        @chat.chat_stream.before_reply
        def veto(reply: ReplyContext) -> None:
            assert reply.user_input == QUESTION
            reply.refuse("not on Sundays")

        assert api(chat.client()) == Answer(403, error="refused", words="not on Sundays")
        assert chat.runner.prompts == []


def test_before_reply_changes_parameters(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        chat.chat_stream.before_reply(lambda reply: reply.set_params(max_new_tokens=4, top_k=7))
        assert api(chat.client()).text == TEXT[:4]
        assert chat.runner.params[0].top_k == 7


@pytest.mark.parametrize("name", MESSAGES_ONLY)
def test_context_and_sources_stand_before_the_question_and_sources_are_shown(
    tmp_path: Path, name: str
) -> None:
    with every_api(tmp_path, says("See [1].")) as chat:

        @chat.chat_stream.before_reply
        def look_up(reply: ReplyContext) -> None:
            reply.add_source("Opening hours", "Mondays 9 to 5", url="/hours")
            reply.add_source("Staff")
            reply.add_context("Today is Monday.")

        sources = [{"title": "Opening hours", "url": "/hours"}, {"title": "Staff"}]
        client = chat.client()
        assert APIS[name](client) == Answer(200, "See [1].", sources=sources)
        added = "[1] Opening hours\nMondays 9 to 5\n\n[2] Staff\n\nToday is Monday."
        assert f"U:{added}\n\n{QUESTION}" in chat.runner.prompts[0]


def test_context_is_a_part_of_its_own_before_a_question_in_parts(tmp_path: Path) -> None:
    with every_api(tmp_path) as chat:

        @chat.chat_stream.before_reply
        def look_up(reply: ReplyContext) -> None:
            assert reply.user_input == "Who are\nyou?"
            reply.add_context("Today is Monday.")

        parts = [{"type": "text", "text": text} for text in ("Who are", "you?")]
        messages = [{"role": "user", "content": parts}]
        response = chat.client().post("/v1/chat/completions", json={"messages": messages})
        assert response.status_code == 200, response.text
        told = re.sub(r"\W+", " ", chat.runner.prompts[0])
        assert "Today is Monday" in told and told.index("Today is Monday") < told.index("Who are")


def test_after_reply_gets_the_text_that_was_let_through(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        ended: list[ReplyContext] = []
        chat.chat_stream.on_text(mask)
        chat.chat_stream.after_reply(ended.append)
        text = api(chat.client()).text
        (reply,) = ended
        assert (reply.text, reply.finish_reason, reply.error) == (text, "stop", None)
        assert reply.usage["completion_tokens"] == len(TEXT) + 1
        assert 0 < reply.total_sec < TIMEOUT


def test_on_text_ends_a_reply_with_words(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        reasons: list[tuple[str, str]] = []

        @chat.chat_stream.on_text
        def stop(reply: ReplyContext, text: str) -> str:
            if "number" in text:
                reply.refuse("no numbers")
            return text

        chat.chat_stream.after_reply(lambda reply: reasons.append((reply.finish_reason, reply.text)))
        answer = api(chat.client())
        assert answer.words == "no numbers"
        assert answer.text in ("", "I am Ann. ")  # an answer that is not streamed is refused whole
        assert reasons == [("error", "I am Ann. ")]


@pytest.mark.parametrize("kind", ["before_reply", "on_text"])
def test_a_hook_that_fails_ends_its_reply_and_tells_nothing(tmp_path: Path, api: Any, kind: str) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:

        def fail(*arguments: Any) -> str:
            raise RuntimeError("secret")

        getattr(chat.chat_stream, kind)(fail)
        answer = api(chat.client())
        assert (answer.text, answer.words) == ("", "a function of this app failed; try again later")
        assert answer.status == (500 if kind == "before_reply" else answer.status)
        chat.chat_stream.engine.drain(TIMEOUT)
        assert chat.chat_stream.engine.stats.hooks[kind].num_failed == 1


def test_after_reply_that_fails_harms_nothing(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path) as chat:
        chat.chat_stream.after_reply(lambda reply: 1 / 0)
        assert api(chat.client()) == Answer(200, "ok")


def test_hooks_run_in_the_context_of_the_request(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        seen = []

        def look(reply: ReplyContext, text: str = "") -> str:
            seen.append((current_app.name, request.headers["User-Agent"], session.get("name")))
            assert not threading.current_thread().name.startswith("chatstream-generation")
            return text

        chat.chat_stream.before_reply(look)
        chat.chat_stream.on_text(look)
        chat.chat_stream.after_reply(look)
        client = chat.client()
        with client.session_transaction() as own:
            own["name"] = "Ann"
        api(client)
        assert set(seen) == {(chat.app.name, request_agent(), "Ann")}
        assert len(seen) == 1 + 3 + 1


def request_agent() -> str:
    from importlib.metadata import version

    return f"Werkzeug/{version('werkzeug')}"


def test_what_was_let_through_is_what_is_stored(tmp_path: Path) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        chat.chat_stream.on_text(mask)
        chat.chat_stream.before_reply(lambda reply: reply.add_source("Ann"))
        client = chat.client()
        text = APIS["chat_stream"](client).text
        _, reply = client.get("/api/conversation").get_json()["messages"]
        assert (reply["text"], reply["sources"]) == (text, [{"title": "Ann"}])
        APIS["chat_stream"](client)
        assert chat.runner.prompts[1].startswith(f"U:{QUESTION}|A:{text}|U:[1] Ann\n\n{QUESTION}")


def test_a_reply_that_nobody_reads_passes_the_hooks_at_its_end(tmp_path: Path) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        chat.chat_stream.on_text(mask)
        client = chat.client()
        say(client, "hi").close()  # with time to come back
        body = {"user_input": "hi"}
        client.post("/api/chat_stream", json=body, headers={"Accept": "text/event-stream"}).close()
        assert chat.chat_stream.engine.drain(TIMEOUT)
        assert chat.history(client)[-1] == TEXT.replace("555-0199", "***")


def test_streamed_text_comes_sentence_by_sentence(tmp_path: Path) -> None:
    with every_api(tmp_path, ScriptedRunner(lambda prompt: TEXT, is_held=True)) as chat:
        chat.chat_stream.on_text(mask)
        response = say(chat.client(), "hi")
        blocks = (block for chunk in response.iter_encoded() for block in chunk.decode().split("\n\n")[:-1])
        events = (parse_event(block) for block in blocks)
        assert next(events).name == "start"
        chat.runner.allow(len("I am Ann. "))
        assert next(events).data == {"text": "I am Ann. "}
        chat.runner.release()
        assert list(events)[-1].name == "done"


def test_several_hooks_follow_one_another(tmp_path: Path, api: Any) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        chat.chat_stream.on_text(mask)

        @chat.chat_stream.on_text(unit="reply")
        def shout(reply: ReplyContext, text: str) -> str:
            return text.upper()

        assert api(chat.client()).text == TEXT.replace("555-0199", "***").upper()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [], "logprobs": True}),
        ("/v1/completions", {"prompt": "a", "logprobs": 1}),
        ("/v1/completions", {"prompt": "a", "return_token_ids": True}),
    ],
)
def test_tokens_of_text_that_hooks_may_change_are_not_given(
    tmp_path: Path, path: str, fields: dict[str, Any]
) -> None:
    with every_api(tmp_path) as chat:
        chat.chat_stream.on_text(mask)
        fields |= {"messages": [{"role": "user", "content": "a"}]} if "messages" in fields else {}
        response = chat.client().post(path, json={"model": "scripted", **fields})
        assert response.status_code == 400
        assert response.get_json()["error"]["param"] == "logprobs"


def test_a_hook_with_wrong_arguments_is_refused(tmp_path: Path) -> None:
    with every_api(tmp_path) as chat:
        with pytest.raises(ConfigError, match=r"on_text\(reply, text\)"):
            chat.chat_stream.on_text(lambda text: text)  # type: ignore[type-var]
        with pytest.raises(ConfigError, match="unit must be one of word, sentence, reply"):
            chat.chat_stream.on_text(unit="line")  # type: ignore[call-overload]


def test_the_time_of_hooks_and_their_failures_are_metrics(tmp_path: Path) -> None:
    with every_api(tmp_path, says(TEXT)) as chat:
        registry = CollectorRegistry()
        registry.register(chat.chat_stream.metrics_collector())
        assert registry.get_sample_value("chatstream_hook_seconds_count", {"hook": "on_text"}) is None
        chat.chat_stream.on_text(mask)
        chat.chat_stream.after_reply(lambda reply: 1 / 0)
        APIS["chat/completions"](chat.client())
        assert registry.get_sample_value("chatstream_hook_seconds_count", {"hook": "on_text"}) == 3
        seconds = registry.get_sample_value("chatstream_hook_seconds_sum", {"hook": "on_text"})
        assert seconds is not None and 0 < seconds < TIMEOUT
        failures = [
            registry.get_sample_value("chatstream_hook_failures_total", {"hook": hook})
            for hook in ("on_text", "after_reply")
        ]
        assert failures == [0, 1]
