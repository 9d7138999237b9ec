"""An engine over HTTP that fails at a given token: nothing is lost, doubled or mixed, and it is found out."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_engine import EOS_ID, FakeEngine, Fault, continued, fake_engine
from fakes import TIMEOUT
from flask import Flask
from transformers import AutoTokenizer

from chatstream_flask import ChatStream
from chatstream_flask.client.events import parse_events, text_of
from chatstream_flask.config import EngineConfig, SamplingParams
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.errors import BadRequest, ConfigError
from chatstream_flask.grammar.schema import json_schema_grammar
from chatstream_flask.model_source.remote_source import RemoteSource
from chatstream_flask.remote import reply as remote_reply
from chatstream_flask.remote.upstream import State
from chatstream_flask.serving.app import create_app

PROMPT = [11, 12, 13]
SSE = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


@contextmanager
def running(source: RemoteSource, max_running: int = 4) -> Iterator[Engine]:
    config = EngineConfig(max_running=max_running, prefill_chunk_len=source.prefill_chunk_len)
    engine = Engine(config, lambda index: source.make_runner(max_running, 1, 0))
    engine.start()
    try:
        yield engine
        engine.check_idle()
    finally:
        engine.stop()


@pytest.fixture
def fakes(tokenizer: Any) -> Iterator[list[FakeEngine]]:
    with ExitStack() as stack:
        yield [stack.enter_context(fake_engine(tokenizer.encode)) for _ in range(2)]


@pytest.fixture
def source(fakes: list[FakeEngine], tokenizer: Any) -> RemoteSource:
    return RemoteSource(",".join(fake.url for fake in fakes), tokenizer, 512, None)


@pytest.fixture
def engine(source: RemoteSource) -> Iterator[Engine]:
    with running(source) as engine:
        yield engine


def submit(engine: Engine, owner: str | None = "a", **params: Any) -> GenerationRequest:
    given = {"max_new_tokens": 40, "temperature": 0.0} | params
    request = GenerationRequest(
        PROMPT, SamplingParams(**given), returns_token_ids=True, cache_owner=owner, timeout_sec=TIMEOUT
    )
    engine.submit(request, engine.reserve())
    return request


def outcome_of(request: GenerationRequest) -> Outcome:
    request.wait_for_outcome(TIMEOUT)
    assert request.outcome is not None
    return request.outcome


def used_by(fakes: list[FakeEngine], engine: Engine, owner: str) -> FakeEngine:
    """Return the engine of a conversation."""
    outcome_of(submit(engine, owner))
    (fake,) = [fake for fake in fakes if fake.bodies]
    fake.bodies.clear()
    return fake


def other_of(fakes: list[FakeEngine], fake: FakeEngine) -> FakeEngine:
    return fakes[1 - fakes.index(fake)]


FAULTS = {
    "breaks off": lambda after: Fault(after),
    "reports an error": lambda after: Fault(after, error="out of memory"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", [0, 1, 17, 39])
def test_another_engine_continues_after_the_tokens_so_far(
    fakes: list[FakeEngine], engine: Engine, fault: str, after: int
) -> None:
    fake = used_by(fakes, engine, "a")
    fake.faults.append(FAULTS[fault](after))
    request = submit(engine)
    assert outcome_of(request).finish_reason is FinishReason.LENGTH
    assert request.token_ids == continued(PROMPT, 40)
    (resumed,) = other_of(fakes, fake).bodies
    assert resumed["prompt"] == PROMPT + continued(PROMPT, after)
    assert resumed["max_tokens"] == 40 - after


def test_replies_at_the_same_time_are_not_mixed(fakes: list[FakeEngine], engine: Engine) -> None:
    for fake, after in itertools.product(fakes, (3, 8)):
        fake.faults.append(Fault(after))
    requests = [submit(engine, f"owner {i}") for i in range(4)]
    for request in requests:
        assert outcome_of(request).is_success
        assert request.token_ids == continued(PROMPT, 40)


def test_a_sampled_reply_continues_with_another_seed_that_its_own_seed_determines(
    fakes: list[FakeEngine], engine: Engine
) -> None:
    fake = used_by(fakes, engine, "a")
    seeds = []
    for _ in range(2):
        fake.faults.append(Fault(5))
        outcome_of(submit(engine, temperature=1.0, seed=9))
        seeds.append((fake.bodies.pop()["seed"], other_of(fakes, fake).bodies.pop()["seed"]))
    assert seeds[0] == seeds[1]
    assert seeds[0][0] == 9 != seeds[0][1]


def test_penalties_of_tokens_that_another_engine_generated_go_on(
    fakes: list[FakeEngine], engine: Engine
) -> None:
    fake = used_by(fakes, engine, "a")
    fake.faults.append(Fault(5))
    outcome_of(submit(engine, frequency_penalty=0.5, presence_penalty=0.25, logit_bias=((3, 2.0),)))
    assert fake.bodies.pop()["logit_bias"] == {"3": 2.0}
    counts = Counter(continued(PROMPT, 5))
    expected = {"3": 2.0} | {str(token_id): -0.5 * num - 0.25 for token_id, num in counts.items()}
    assert other_of(fakes, fake).bodies.pop()["logit_bias"] == expected


@pytest.mark.parametrize(("after", "is_continued"), [(0, True), (5, False)])
def test_a_reply_in_a_format_is_not_continued_in_its_middle(
    fakes: list[FakeEngine], engine: Engine, after: int, is_continued: bool
) -> None:
    fake = used_by(fakes, engine, "a")
    fake.faults.append(Fault(after))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    outcome = outcome_of(submit(engine, grammar=json_schema_grammar(schema)))
    assert outcome.is_success == is_continued
    assert outcome.error == (None if is_continued else remote_reply.FAILED)
    bodies = [body for fake in fakes for body in fake.bodies]
    assert [body["structured_outputs"] for body in bodies] == [{"json": schema}] * (1 + is_continued)


def test_a_silent_stream_counts_as_broken(
    fakes: list[FakeEngine], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reply, "TOKEN_SEC", 0.1)
    fake = used_by(fakes, engine, "a")
    fake.faults.append(Fault(5, hangs=True))
    request = submit(engine)
    assert outcome_of(request).is_success
    assert request.token_ids == continued(PROMPT, 40)


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_busy_engine_is_left_alone_and_no_failure_is_counted(
    fakes: list[FakeEngine], source: RemoteSource, engine: Engine, status: int
) -> None:
    for fake in fakes:
        fake.faults.append(Fault(status=status))
    request = submit(engine)
    assert outcome_of(request).is_success
    assert request.token_ids == continued(PROMPT, 40)
    assert [upstream.num_failures for upstream in source.engines.upstreams.all] == [0, 0]
    assert sum(len(fake.bodies) for fake in fakes) == 3


def test_a_refused_request_ends_with_an_error_and_is_sent_once(
    fakes: list[FakeEngine], engine: Engine
) -> None:
    used_by(fakes, engine, "a").faults.append(Fault(status=400))
    outcome = outcome_of(submit(engine))
    assert (outcome.finish_reason, outcome.error) == (FinishReason.ERROR, "the engine refused the request")
    assert sum(len(fake.bodies) for fake in fakes) == 1


def test_a_reply_that_no_engine_generates_ends_with_an_error(
    fakes: list[FakeEngine], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reply, "MAX_WAIT_SEC", 0.2)
    for fake in fakes:
        fake.faults += [Fault(2)] + [Fault(0)] * 10
    request = submit(engine)
    outcome = outcome_of(request)
    assert outcome.finish_reason is FinishReason.ERROR
    assert outcome.error in (remote_reply.FAILED, remote_reply.UNAVAILABLE)
    assert request.token_ids == continued(PROMPT, 4)
    assert outcome.failure is not None and outcome.failure.status == 503


def test_an_engine_that_fails_again_and_again_is_not_used_until_a_probe_succeeds(
    fakes: list[FakeEngine], source: RemoteSource, engine: Engine
) -> None:
    fake = used_by(fakes, engine, "a")
    (upstream,) = [it for it in source.engines.upstreams.all if it.url == fake.url]
    fake.faults += [Fault()] * 3
    fake.is_down = True
    for _ in range(3):
        assert outcome_of(submit(engine)).is_success
    assert source.engines.upstreams.up != source.engines.upstreams.all
    assert upstream.fault == "its stream broke off"
    fake.bodies.clear()
    assert outcome_of(submit(engine)).is_success
    assert not fake.bodies
    fake.is_down = False
    deadline = time.monotonic() + TIMEOUT
    while upstream.fault is not None and time.monotonic() < deadline:
        outcome_of(submit(engine))
    assert outcome_of(submit(engine)).is_success
    assert fake.bodies


def test_a_conversation_stays_with_its_engine_until_that_has_much_more_to_do(
    fakes: list[FakeEngine], engine: Engine
) -> None:
    fake = used_by(fakes, engine, "a")
    for _ in range(5):
        outcome_of(submit(engine))
    assert len(fake.bodies) == 5
    assert {headers["x-session-id"] for headers in fake.headers} == {fake.bodies[0]["prompt_cache_key"]}
    fake.faults += [Fault(1, hangs=True)] * 4
    held = [submit(engine) for _ in range(4)]
    fake.wait_until_running(4)
    for request in held:
        engine.cancel(request)
    fake.wait_until_running(0)
    assert {outcome_of(request).finish_reason for request in held} == {FinishReason.CANCELLED}


def test_the_stream_of_a_cancelled_reply_is_closed(fakes: list[FakeEngine], engine: Engine) -> None:
    fake = used_by(fakes, engine, "a")
    fake.faults.append(Fault(3, hangs=True))
    request = submit(engine)
    fake.wait_until_running(1)
    engine.cancel(request)
    assert outcome_of(request).finish_reason is FinishReason.CANCELLED
    fake.wait_until_running(0)


@pytest.mark.parametrize("has_end_token", [True, False])
def test_the_end_token_ends_the_reply_also_where_the_engine_leaves_it_out(
    fakes: list[FakeEngine], engine: Engine, has_end_token: bool
) -> None:
    for fake in fakes:
        fake.num_tokens, fake.has_end_token = 6, has_end_token
    request = submit(engine)
    assert outcome_of(request).finish_reason is FinishReason.STOP
    assert request.token_ids is not None and request.token_ids[:6] == continued(PROMPT, 6)
    assert request.token_ids[6:] == [EOS_ID]


def test_engines_are_added_and_taken_out_while_they_run(
    fakes: list[FakeEngine], tokenizer: Any, tmp_path: Any
) -> None:
    path = tmp_path / "engines"
    path.write_text(f"# engines\n{fakes[0].url}\n")
    source = RemoteSource(f"file:{path}", tokenizer, 512, None)
    with running(source) as engine:
        fakes[0].faults.append(Fault(5, hangs=True))
        held = submit(engine)
        fakes[0].wait_until_running(1)
        path.write_text(f"{fakes[1].url}/v1\n")
        deadline = time.monotonic() + TIMEOUT
        while not fakes[1].bodies and time.monotonic() < deadline:
            outcome_of(submit(engine))
        assert held.outcome is None
        states = {it.url: it.state for it in source.engines.upstreams.all}
        assert states == {fakes[0].url: State.DRAINING, fakes[1].url: State.UP}
        engine.cancel(held)
        outcome_of(held)


def test_one_engine_that_does_not_answer_at_the_start_is_added_later(
    fakes: list[FakeEngine], tokenizer: Any
) -> None:
    fakes[1].is_down = True
    source = RemoteSource([fake.url for fake in fakes], tokenizer, 512, None)
    assert [it.url for it in source.engines.upstreams.up] == [fakes[0].url]
    fakes[1].is_down = False
    with running(source) as engine:
        deadline = time.monotonic() + TIMEOUT
        while len(source.engines.upstreams.up) < 2 and time.monotonic() < deadline:
            outcome_of(submit(engine))
    assert len(source.engines.upstreams.up) == 2


# -- what is refused at the start ----------------------------------------------------------------------


def test_the_context_is_that_of_the_engine(fakes: list[FakeEngine], tokenizer: Any) -> None:
    fakes[0].model_len = 100
    assert RemoteSource([fake.url for fake in fakes], tokenizer, 300, None).context_len == 100


def test_another_tokenizer_is_refused(fakes: list[FakeEngine], tokenizer: Any) -> None:
    for fake in fakes:
        fake.encode = lambda text: [token_id + 1 for token_id in tokenizer.encode(text)]
    with pytest.raises(ConfigError, match="its tokenizer is another one"):
        RemoteSource(fakes[0].url, tokenizer, 512, None)


def test_engines_that_do_not_answer_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9: it does not answer"):
        RemoteSource("http://127.0.0.1:9", tokenizer, 512, None)


@pytest.mark.parametrize("urls", ["", " , ", "127.0.0.1:8000", "http://", "ftp://a", "file:/nowhere"])
def test_what_is_no_url_is_refused(urls: str, tokenizer: Any) -> None:
    with pytest.raises(ConfigError):
        RemoteSource(urls, tokenizer, 512, None)


def test_log_probabilities_of_a_prompt_are_refused(source: RemoteSource) -> None:
    source.check(SamplingParams(num_logprobs=1))
    with pytest.raises(BadRequest, match="not available from an engine over HTTP"):
        source.check(SamplingParams(num_prompt_logprobs=0))


# -- in an app ------------------------------------------------------------------------------------------


@pytest.fixture
def app(fakes: list[FakeEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.chdir(tmp_path)
    urls = [fake.url for fake in fakes]
    chat_stream = ChatStream.from_pretrained(DEMO_MODEL, engine=urls, max_new_tokens=40, temperature=0)
    config = {"CHATSTREAM_STORE": "memory://", "CHATSTREAM_COOKIE_SECURE": False}
    yield create_app(chat_stream, config)
    chat_stream.close()


def test_an_engine_gets_the_id_and_the_trace_of_the_request(fakes: list[FakeEngine], app: Flask) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "mine", "traceparent": trace}
    for path, body in (
        ("/chat_stream", {"user_input": "Hello"}),
        ("/v1/completions", {"prompt": "Hello"}),
    ):
        app.test_client().post(path, json=body, headers=headers).get_data()
        (got,) = [headers for fake in fakes for headers in fake.headers]
        assert got["X-Request-Id"] == "mine"
        assert got["traceparent"].split("-")[1] == trace.split("-")[1]
        for fake in fakes:
            fake.headers.clear()


def test_the_history_keeps_the_part_of_a_reply_that_no_engine_continues(
    fakes: list[FakeEngine], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reply, "MAX_WAIT_SEC", 0.1)
    for fake in fakes:
        fake.faults += [Fault(12)] + [Fault(0)] * 10
    client = app.test_client()
    response = client.post("/chat_stream", json={"user_input": "Hello"}, headers=SSE)
    events = parse_events(response.data)
    assert events[-1].name == "error"
    assert events[-1].data["code"] == "engine_unavailable"
    last = client.get("/conversation").get_json()["messages"][-1]
    assert last["text"] == text_of(events) != ""
    assert last["is_interrupted"]


def test_without_any_engine_requests_are_refused(
    fakes: list[FakeEngine], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_reply, "MAX_WAIT_SEC", 0.1)
    client = app.test_client()
    for fake in fakes:
        fake.is_down = True
        fake.faults += [Fault(0)] * 20
    for _ in range(2):
        client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 1})
    assert client.get("/health/ready").get_json()["status"] == "no_engine"
    response = client.post("/v1/completions", json={"prompt": "Hello"})
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "engine_unavailable"
