"""The chat API: names, paths, answers, and apps that publish only a part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask_fakes import SSE, Chat, ScriptedRunner, make_chat, read_events, read_until, stopping

from chatstream_flask import ChatStream
from chatstream_flask.errors import ConfigError
from chatstream_flask.extension import chat_streams_of
from chatstream_flask.views import API_NAMES, create_chat_blueprint

BUT_CHAT = {"exclude": ["chat_stream"]}


def paths_of(app: Flask) -> set[str]:
    return {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("chatstream.")}


def app_with(tmp_path: Path, opts: dict[str, Any], runner: ScriptedRunner | None = None) -> Chat:
    chat = make_chat(tmp_path, runner)
    chat.chat_stream.append_apis(chat.app, opts)
    return chat


def ask(client: Any, user_input: str) -> str:
    """Its message id."""
    response = client.post("/chat_stream", json={"user_input": user_input}, headers=SSE)
    assert list(read_events(response))[-1].name == "done"
    return str(response.headers["X-ChatStream-Last-Generated-Message-Id"])


# -- which -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opts", "paths"),
    [
        ({"include": ["clear_context", "get_load"]}, {"/clear_context", "/get_load"}),
        ({"include": "get_prompt"}, {"/get_prompt"}),
        (
            {"include": ["chat_stream"]},
            {
                "/chat_stream",
                "/chat_stream/<message_id>",
                "/chat_stream/<message_id>/answer_now",
                "/chat_stream/<message_id>/cancel",
                "/chat_stream/<message_id>/steps/<step_id>",
            },
        ),
        ({"exclude": [name for name in API_NAMES if name != "get_prompt"]}, {"/get_prompt"}),
        ({"include": []}, set()),
    ],
)
def test_only_what_was_named(tmp_path: Path, opts: dict[str, Any], paths: set[str]) -> None:
    with stopping(app_with(tmp_path, opts)) as chat:
        assert paths_of(chat.app) == paths


def test_all_of_them(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True})) as chat:
        assert paths_of(chat.app) >= {
            "/chat_stream",
            "/clear_context",
            "/conversation",
            "/get_prompt",
            "/get_generation_params",
            "/set_generation_params",
            "/set_feedback",
            "/get_load",
            "/get_resource_usage",
            "/",
        }


async def async_callback(feedback: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("opts", "sentence"),
    [
        ({}, "append_apis needs one of"),
        ({"all": True, "include": ["get_load"]}, "append_apis needs one of"),
        ({"all": False}, "append_apis needs one of"),
        ({"include": ["get_laod"]}, "unknown API get_laod; allowed: chat_stream, "),
        ({"exclude": ["x y"]}, "unknown API 'x y'"),
        (
            {"all": True, "callback": "log"},
            "callback must be a function that can be called as callback(request",
        ),
        (
            {"all": True, "callback": lambda message: None},
            "as callback(request, message): too many positional",
        ),
        (
            {"all": True, "on_feedback_received": lambda: None},
            "called as on_feedback_received(feedback): too",
        ),
        ({"all": True, "on_feedback_received": async_callback}, "an async function would never be awaited"),
        ({"all": True, "on_feedback": print}, "unknown option on_feedback; allowed: callback, "),
    ],
)
def test_wrong_options(tmp_path: Path, opts: dict[str, Any], sentence: str) -> None:
    with stopping(make_chat(tmp_path)) as chat, pytest.raises(ConfigError) as caught:
        chat.chat_stream.append_apis(chat.app, opts)
    assert sentence in str(caught.value)


def test_below_a_prefix_and_on_an_app_that_was_set_up(tmp_path: Path) -> None:
    with stopping(make_chat(tmp_path)) as chat:
        chat.chat_stream.init_app(chat.app)
        blueprint = create_chat_blueprint(chat.chat_stream, include=["get_load"])
        chat.app.register_blueprint(blueprint, url_prefix="/api/v1")
        assert chat.client().get("/api/v1/get_load").status_code == 200


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_the_page_and_its_files(tmp_path: Path, prefix: str) -> None:
    with stopping(make_chat(tmp_path)) as chat:
        chat.chat_stream.init_app(chat.app)
        blueprint = create_chat_blueprint(chat.chat_stream, web_ui_params={"title": "Harbour"})
        chat.app.register_blueprint(blueprint, url_prefix=prefix)
        client = chat.client()
        page = client.get(f"{prefix}/").text
        assert "<title>Harbour</title>" in page
        scripts = re.findall(r'src="(chatstream_ui/.*?)"', page)
        assert scripts
        for script in scripts:
            with client.get(f"{prefix}/{script}") as answer:
                assert answer.mimetype == "text/javascript"


# -- what they say -----------------------------------------------------------------------------------


def test_the_callback_of_the_options(tmp_path: Path) -> None:
    words: list[str] = []
    opts = {"all": True, "callback": lambda request, message: words.append(message)}
    with stopping(app_with(tmp_path, opts)) as chat:
        ask(chat.client(), "hi")
        chat.chat_stream.engine.stop()
    assert words == ["success"]


def test_the_conversation(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True}, ScriptedRunner(is_held=True))) as chat:
        client = chat.client()
        assert client.get("/conversation").get_json() == {"id": None, "messages": [], "running": None}
        response = client.post("/chat_stream", json={"user_input": "日本 hi"}, headers=SSE)
        events = read_events(response)
        start = read_until(events, "start")
        running = {"message_id": start.data["message_id"], "user_input": "日本 hi", "num_kept": 0}
        assert client.get("/conversation").get_json() == {"id": None, "messages": [], "running": running}
        chat.runner.release()
        done = read_until(events, "done")
        (entry,) = client.get("/conversations").get_json()["conversations"]
        assert client.get("/conversation").get_json() == {
            "id": entry["id"],
            "messages": [
                {"role": "requester", "text": "日本 hi", "message_id": None, "is_interrupted": False},
                {
                    "role": "responder",
                    "text": "ok",
                    "message_id": done.data["message_id"],
                    "is_interrupted": False,
                },
            ],
            "running": None,
        }
        chat.runner.is_held = True
        again = client.post("/chat_stream", json={"regenerate": True}, headers=SSE)
        running = client.get("/conversation").get_json()["running"]
        assert (running["user_input"], running["num_kept"]) == ("日本 hi", 0)
        chat.runner.release()
        assert list(read_events(again))[-1].name == "done"


def test_the_prompt(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True})) as chat:
        client = chat.client()
        assert client.get("/get_prompt").get_json() == {
            "success": True,
            "message": "no prompt",
            "prompt": None,
        }
        ask(client, "東京 &")
        answer = client.get("/get_prompt").get_json()
        assert (answer["success"], answer["message"]) == (True, "success")
        assert answer["prompt"].isascii()
        assert unquote(answer["prompt"]) == "U:東京 &|A:ok"


def test_generation_params(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True})) as chat:
        client = chat.client()
        before = client.get("/get_generation_params").get_json()
        assert (before["success"], before["message"]) == (True, "success")
        assert before["generation_params"]["top_k_value"] == before["generation_params"]["top_k"] == 50
        given = {"temperature": 0.5, "top_k_value": 7}
        answer = client.post("/set_generation_params", json=given).get_json()
        assert answer["generation_params"]["temperature"] == 0.5
        assert answer["generation_params"]["top_k"] == answer["generation_params"]["top_k_value"] == 7
        assert client.post("/set_generation_params", json={}).get_json() == answer
        assert client.get("/get_generation_params").get_json() == answer
        reset = client.post("/set_generation_params", data="null", content_type="application/json")
        assert reset.get_json() == before
        for wrong in ({"temperature": 3}, {"top_kk": 1}, [1], "x"):
            refused = client.post("/set_generation_params", json=wrong)
            assert (refused.status_code, refused.get_json()["error"]) == (400, "bad_request")
        assert client.post("/set_generation_params", data="{").status_code == 400
        assert client.get("/get_generation_params").get_json() == before


def test_feedback(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []
    opts = {"all": True, "on_feedback_received": given.append}
    with stopping(app_with(tmp_path, opts)) as chat:
        client = chat.client()
        message_id = ask(client, "one")
        ask(client, "two")
        body = {"message_id": message_id, "is_like": True, "form_data": {"why": "nice"}}
        answer = client.post("/set_feedback", json=body).get_json()
        assert answer == {"success": True, "message": "success", "target_message_id": message_id}
        (feedback,) = given
        assert (feedback["is_like"], feedback["form_data"]) == (True, {"why": "nice"})
        assert (feedback["target_message_id"], feedback["target_message"]) == (message_id, "ok")
        assert [content.message for content in feedback["prompt"]] == ["one", "ok"]
        assert feedback["generation_params"]["temperature"] == 1.0
        for wrong, status in (
            ({"message_id": "x", "is_like": True}, 404),
            ({"is_like": True}, 400),
            ({"message_id": message_id, "is_like": "yes"}, 400),
            ({"message_id": message_id, "is_liked": True}, 400),
            ([], 400),
        ):
            assert client.post("/set_feedback", json=wrong).status_code == status
        assert client.post("/set_feedback", data="x").status_code == 400
        assert chat.client().post("/set_feedback", json=body).status_code == 404  # somebody else's
        assert len(given) == 1


def test_the_load(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True}, ScriptedRunner(is_held=True))) as chat:
        idle = {"name": "node:0", "processing": 0, "waiting": 0, "max_processing": 2, "max_waiting": 5}
        idle["free"] = 7
        answer = chat.client().get("/get_load").get_json()
        assert answer == {
            "success": True,
            "message": "success",
            "chatstream_workers": [idle | {"eta_s": None}],
        }
        responses = []
        for _ in range(3):
            responses.append(chat.client().post("/chat_stream", json={"user_input": "hi"}, headers=SSE))
            if len(responses) < 3:
                read_until(read_events(responses[-1]), "start")
        (worker,) = chat.client().get("/get_load").get_json()["chatstream_workers"]
        assert (worker["processing"], worker["waiting"], worker["free"]) == (2, 1, 4)
        place = chat.chat_stream.engine.reserve()  # of a request whose prompt is being made
        (worker,) = chat.client().get("/get_load").get_json()["chatstream_workers"]
        assert (worker["waiting"], worker["free"]) == (1, 3)
        place.close()
        chat.runner.release()
        assert list(read_events(responses[-1]))[-1].name == "done"
        (worker,) = chat.client().get("/get_load").get_json()["chatstream_workers"]
        assert worker["eta_s"] == 0.0


def test_the_resources(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True})) as chat:
        answer = chat.client().get("/get_resource_usage").get_json()
        (usage,) = answer["memory_usage"]
        assert (answer["success"], usage["num_gpus"]) == (True, len(usage["gpus"]))
        assert 0 < usage["cpu"]["used_memory"] < usage["cpu"]["total_memory"]


def test_answers_about_a_visitor_are_not_cached(tmp_path: Path) -> None:
    with stopping(app_with(tmp_path, {"all": True})) as chat:
        for path in ("/conversation", "/get_prompt", "/get_generation_params", "/get_load"):
            assert chat.client().get(path).headers["Cache-Control"] == "no-store"


def test_a_constructor_is_all_that_is_needed_before() -> None:
    app = Flask("host")
    chat_stream = ChatStream(use_mock_response=True)
    chat_stream.append_apis(app, BUT_CHAT)
    assert chat_streams_of(app) == [chat_stream]
