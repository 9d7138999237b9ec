"""/metrics and /health: their answers in each state, and the numbers in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import TIMEOUT, wait_until
from flask_fakes import FAIL, Chat, ScriptedRunner, read_events, running_chat, say, talk
from prometheus_client.parser import text_string_to_metric_families

from chatstream_flask import ChatStream
from chatstream_flask.engine.failure_streak import MAX_FAILURES
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.errors import ConfigError
from chatstream_flask.serving.app import create_app
from chatstream_flask.status_page.admin_key import MAX_ADDRESSES, MAX_WRONG_KEYS, WrongKeys
from chatstream_flask.views import create_operations_blueprint


class OnceRunner(ScriptedRunner):
    """Opens once, and then no more."""

    is_opened = False

    def open(self) -> None:
        if self.is_opened:
            raise ConfigError("the device is lost")
        self.is_opened = True


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with running_chat(tmp_path, OnceRunner(), num_of_concurrent_executions=1, max_queue_size=1) as chat:
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        yield chat


def samples(chat: Chat) -> dict[str, float]:
    """By the name with its labels, as Prometheus reads them."""
    response = chat.app.test_client().get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain")
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def ready(chat: Chat) -> tuple[int, dict[str, Any]]:
    response = chat.app.test_client().get("/health/ready")
    return response.status_code, response.get_json()


def test_metrics_before_the_first_request(chat: Chat) -> None:
    found = samples(chat)
    assert found["chatstream_num_requests_running"] == found["chatstream_ready"] == 0
    assert found["chatstream_admission_rejections_total[queue_full]"] == 0
    assert found["chatstream_time_to_first_token_seconds_count"] == 0
    assert found["process_resident_memory_bytes"] > 10**6


def test_metrics_count_what_happened(chat: Chat) -> None:
    client = chat.client()
    talk(client, "hi")  # the prompt is "U:hi|A:", the reply "ok" and its end
    wait_until(lambda: chat.chat_stream.engine.workers[0].is_idle)  # its last step is over
    found = samples(chat)
    assert found["chatstream_prompt_tokens_total"] == found["chatstream_request_prompt_tokens_sum"] == 7
    assert found["chatstream_generation_tokens_total"] == 3
    assert found["chatstream_request_generation_tokens_bucket[5.0]"] == 1
    assert found["chatstream_request_generation_tokens_bucket[2.0]"] == 0
    assert found["chatstream_request_success_total[stop]"] == found["chatstream_ready"] == 1
    for name in ("request_queue_time", "time_to_first_token", "request_prefill_time", "request_decode_time"):
        assert found[f"chatstream_{name}_seconds_count"] == 1
    assert found["chatstream_inter_token_latency_seconds_count"] == 2
    assert found["chatstream_step_time_seconds_count"] == 3
    for name, value in found.items():
        if name.endswith("_bucket[+Inf]"):
            assert value == found[name.replace("_bucket[+Inf]", "_count")]
    total = found["chatstream_e2e_request_latency_seconds_sum"]
    parts = [f"chatstream_request_{part}_time_seconds_sum" for part in ("queue", "prefill", "decode")]
    assert sum(found[part] for part in parts) == pytest.approx(total, abs=0.001)


def test_metrics_of_a_full_server(chat: Chat) -> None:
    chat.runner.is_held = True
    client = chat.client()
    running, waiting = say(client, "a"), say(chat.client(), "b")
    wait_until(lambda: chat.chat_stream.engine.kv_usage > 0)
    refused = chat.client().post("/chat_stream", json={"user_input": "c"})
    assert refused.get_json() == {"error": "too_many_requests"}
    found = samples(chat)
    assert found["chatstream_num_requests_running"] == found["chatstream_max_requests_running"] == 1
    assert found["chatstream_num_requests_waiting"] == found["chatstream_max_requests_waiting"] == 1
    assert found["chatstream_admission_rejections_total[queue_full]"] == 1
    assert found["chatstream_kv_cache_usage_perc"] == pytest.approx(6 / 1024)
    waiting.close()
    running.close()
    assert [chat.word(), chat.word()] == ["client_disconnected_before_streaming"] * 2
    found = samples(chat)
    assert found["chatstream_request_aborted_total[waiting]"] == 1
    assert found["chatstream_request_aborted_total[prefill]"] == 1


def test_failed_reply_is_counted(chat: Chat) -> None:
    chat.runner.reply = lambda prompt: FAIL
    say(chat.client(), "a").get_data()
    assert samples(chat)["chatstream_request_error_total"] == 1


def test_open_metrics_where_prometheus_asks_for_it(chat: Chat) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = chat.client().get("/metrics", headers=accept)
    assert response.content_type.startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_health_from_the_start_to_the_end(chat: Chat) -> None:
    engine, client = chat.chat_stream.engine, chat.app.test_client()
    assert client.get("/health/live").get_json() == {"status": "alive"}
    assert (ready(chat)[0], ready(chat)[1]["status"]) == (503, "not_started")
    engine.start()
    wait_until(lambda: engine.workers[0].is_idle)
    code, health = ready(chat)
    assert (code, health["status"], health["running"], health["max_waiting"]) == (200, "ready", 0, 1)
    (thread,) = health["threads"]
    assert (thread["name"], thread["state"], thread["slots"]) == ("chatstream-generation-0", "idle", 1)
    assert thread["fault"] is None and thread["last_step_age_sec"] < TIMEOUT
    engine.begin_drain()
    assert (ready(chat)[0], ready(chat)[1]["status"]) == (503, "draining")
    engine.stop()
    assert ready(chat)[0] == 503
    assert client.get("/health/live").status_code == 200


def test_broken_engine_is_neither_ready_nor_alive(chat: Chat) -> None:
    chat.runner.reply = lambda prompt: sys.exit()
    say(chat.client(), "a").get_data()  # its thread dies, and the next cannot open
    wait_until(lambda: chat.chat_stream.engine.broken is not None)
    code, health = ready(chat)
    assert (code, health["status"], health["threads"]) == (503, "broken", [])
    assert health["broken"] == "generation thread 1 could not start: the device is lost"
    live = chat.app.test_client().get("/health/live")
    assert (live.status_code, live.get_json()) == (503, {"status": "broken"})
    refused = chat.client().post("/chat_stream", json={"user_input": "b"})
    assert (refused.status_code, refused.get_json()["error"]) == (503, "engine_broken")
    assert samples(chat)["chatstream_generation_thread_replacements_total[died]"] == 1


def test_model_that_fails_at_every_step_ends_in_broken(tmp_path: Path) -> None:
    """It stayed ready while 200 of 200 requests failed."""
    with failing_chat(tmp_path, num_failures=10**9) as chat:
        engine, client = chat.chat_stream.engine, chat.app.test_client()
        for _ in range(2 * MAX_FAILURES):
            wait_until(lambda: not engine.is_failing)
            assert failed(chat, "a")
        wait_until(lambda: engine.broken is not None)
        for path in ("/health/live", "/health/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.get_json()["status"]) == (503, "broken")
        refused = [chat.client().post("/chat_stream", json={"user_input": "b"}) for _ in range(200)]
        assert {(r.status_code, r.get_json()["error"]) for r in refused} == {(503, "engine_broken")}
        found = samples(chat)
        assert (found["chatstream_ready"], found["chatstream_request_error_total"]) == (0, 2 * MAX_FAILURES)
        assert found["chatstream_generation_thread_replacements_total[failing]"] == 1


def test_model_that_fails_five_times_and_then_works_serves_again(tmp_path: Path) -> None:
    with failing_chat(tmp_path, num_failures=5 + 1) as chat:
        for _ in range(5):
            wait_until(lambda: not chat.chat_stream.engine.is_failing)
            assert failed(chat, "a")
        assert talk(chat.client(), "b") == "ok"
        assert (ready(chat)[0], samples(chat)["chatstream_ready"]) == (200, 1)


def test_requests_are_refused_while_a_failing_model_is_restarted(tmp_path: Path) -> None:
    with failing_chat(tmp_path, num_failures=MAX_FAILURES + 1) as chat:
        assert isinstance(chat.runner, FailingRunner)
        chat.runner.may_open.clear()
        chat.chat_stream.engine.start()
        for _ in range(MAX_FAILURES):
            assert failed(chat, "a")
        assert (ready(chat)[0], ready(chat)[1]["status"]) == (503, "thread_failing")
        assert samples(chat)["chatstream_ready"] == 0
        assert chat.app.test_client().get("/health/live").status_code == 200
        refused = chat.client().post("/chat_stream", json={"user_input": "b"})
        assert (refused.status_code, refused.get_json()["error"]) == (503, "engine_failing")
        assert int(refused.headers["Retry-After"]) >= 1
        chat.runner.may_open.set()
        wait_until(lambda: ready(chat)[0] == 200)
        assert talk(chat.client(), "b") == "ok"


class FailingRunner(ScriptedRunner):
    """Fails at its first `num_failures` steps, the one of a test prompt included; opens again when it may."""

    def __init__(self, num_failures: int) -> None:
        super().__init__()
        self.num_left = num_failures
        self.num_opened = 0
        self.may_open = threading.Event()
        self.may_open.set()

    def open(self) -> None:
        self.num_opened += 1
        assert self.num_opened == 1 or self.may_open.wait(TIMEOUT)

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if self.num_left:
            self.num_left -= 1
            raise RuntimeError("device-side assert triggered")
        return super().decode(sequences)


@contextmanager
def failing_chat(tmp_path: Path, num_failures: int) -> Iterator[Chat]:
    with running_chat(tmp_path, FailingRunner(num_failures), num_of_concurrent_executions=1) as chat:
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        yield chat


def failed(chat: Chat, user_input: str) -> bool:
    """Send a message, and return whether its reply ended with an error."""
    return list(read_events(say(chat.client(), user_input)))[-1].name == "error"


MULTIPROC = """
from fakes import ask
from test_engine import end_of, submit
from chatstream_flask import ChatStream
from chatstream_flask.monitoring.engine_collector import make_registry
from prometheus_client import generate_latest

params = {"time_per_token_sec": 0}
chat_stream = ChatStream(use_mock_response=True, mock_params=params, num_of_generation_threads=1)
chat_stream.start_queue_worker()
request = ask("hi")
submit(chat_stream.engine, request)
end_of(request)
text = generate_latest(make_registry(chat_stream.engine)).decode()
chat_stream.engine.stop()
print(text)
"""


def test_a_host_that_has_prometheus_in_multiprocess_mode_changes_nothing(tmp_path: Path) -> None:
    """Our numbers are those of the process that holds the model, and leave no files behind."""
    done = subprocess.run(
        [sys.executable, "-c", MULTIPROC],
        cwd=Path(__file__).parents[1],
        env=os.environ
        | {"PYTHONPATH": f".:engine:{Path(__file__).parents[2]}", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert 'chatstream_request_success_total{finished_reason="stop"} 1.0' in done.stdout
    assert list(tmp_path.iterdir()) == []


KEY = "an-admin-key-of-tests"


@pytest.mark.parametrize(
    ("config", "headers", "statuses", "has_details"),
    [
        ({}, {}, [404, 200, 503], False),
        ({"CHATSTREAM_METRICS": "open"}, {}, [200, 200, 503], True),
        ({"CHATSTREAM_ADMIN_KEY": KEY}, {}, [401, 200, 503], False),
        ({"CHATSTREAM_ADMIN_KEY": KEY}, {"X-Admin-Key": KEY}, [200, 200, 503], True),
        ({"CHATSTREAM_ADMIN_KEY": KEY}, {"Authorization": f"Bearer {KEY}"}, [200, 200, 503], True),
        ({"CHATSTREAM_ADMIN_KEY": KEY}, {"X-Admin-Key": "wrong"}, [401, 200, 401], False),
    ],
)
def test_serve_shows_operators_what_it_does_not_show_everybody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, str],
    headers: dict[str, str],
    statuses: list[int],
    has_details: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    client = create_app(ChatStream(use_mock_response=True), config).test_client()
    paths = ("/metrics", "/health/live", "/health/ready")
    answers = [client.get(path, headers=headers) for path in paths]
    assert [answer.status_code for answer in answers] == statuses
    assert ("threads" in answers[-1].text) == has_details
    assert [client.get(path).status_code for path in ("/get_prompt", "/get_resource_usage")] == [404, 404]


def test_serve_has_what_it_is_told_to_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = create_app(ChatStream(use_mock_response=True), exclude=["get_prompt"]).test_client()
    assert client.get("/get_resource_usage").status_code == 200
    assert client.get("/get_prompt").status_code == 404


def test_wrong_admin_keys_are_logged_and_soon_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    client = create_app(ChatStream(use_mock_response=True), {"CHATSTREAM_ADMIN_KEY": KEY}).test_client()
    tries = [client.get("/metrics", headers={"X-Admin-Key": f"wrong {i}"}) for i in range(MAX_WRONG_KEYS)]
    assert {answer.status_code for answer in tries} == {401}
    assert caplog.messages == ["a wrong admin key from address:127.0.0.1"] * MAX_WRONG_KEYS
    limited = client.get("/metrics", headers={"X-Admin-Key": KEY})
    assert limited.status_code == 429 and 1 <= int(limited.headers["Retry-After"]) <= 60
    assert client.get("/health/live").status_code == 200  # what asks for no key goes on
    elsewhere = {"REMOTE_ADDR": "192.0.2.1"}
    right = client.get("/metrics", headers={"X-Admin-Key": KEY}, environ_overrides=elsewhere)
    assert right.status_code == 200


def test_wrong_keys_are_forgotten_after_a_minute_and_their_number_is_bounded() -> None:
    now = 1000.0
    keys = WrongKeys(lambda: now)
    for _ in range(MAX_WRONG_KEYS):
        keys.add("a")
    assert (keys.wait_sec("a"), keys.wait_sec("b")) == (60, 0)
    now += 60
    keys.add("a")
    assert keys.wait_sec("a") == 0
    for i in range(2 * MAX_ADDRESSES):
        keys.add(str(i))
    assert len(keys._windows) == MAX_ADDRESSES
