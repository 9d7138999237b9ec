"""OpenTelemetry spans: one per request, with its phases, below the caller's span."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask_fakes import FAIL, SSE, Chat, ScriptedRunner, running_chat, say
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}


class OwnIds(IdGenerator):
    """Ids that leave `random` alone: hypothesis fails later tests of this process if a thread uses it."""

    def generate_span_id(self) -> int:
        return secrets.randbelow(2**64 - 1) + 1

    def generate_trace_id(self) -> int:
        return secrets.randbelow(2**128 - 1) + 1


@pytest.fixture(scope="module")
def all_spans() -> InMemorySpanExporter:
    """Return the exporter of this process, whose tracer provider can be set only once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(id_generator=OwnIds())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(all_spans: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    yield all_spans
    all_spans.clear()


def talk(chat: Chat, **headers: str) -> None:
    body = {"user_input": "hi", "top_k": None}
    chat.client().post("/chat_stream", json=body, headers=SSE | headers).get_data()
    chat.word()


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = {span.name: span for span in spans.get_finished_spans()}
    assert len(found) == len(spans.get_finished_spans())
    return found


def test_span_of_a_reply_and_its_phases(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with running_chat(tmp_path) as chat:
        talk(chat, **CALLER, **{"X-Request-Id": "r1"})
    found = by_name(spans)
    assert set(found) == {"chat", "queue", "prefill", "decode"}
    chat_span = found["chat"]
    assert chat_span.parent is not None and chat_span.context is not None
    assert f"{chat_span.parent.trace_id:032x}" == f"{chat_span.context.trace_id:032x}" == TRACE_ID
    assert f"{chat_span.parent.span_id:016x}" == SPAN_ID
    attributes = dict(chat_span.attributes or {})
    assert len(str(attributes.pop("gen_ai.conversation.id"))) == 16
    assert float(str(attributes.pop("gen_ai.response.time_to_first_chunk"))) > 0
    assert attributes == {
        "chatstream.request_id": "r1",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "chatstream_flask",
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    children = [found[name] for name in ("queue", "prefill", "decode")]
    assert all(c.parent and c.parent.span_id == chat_span.context.span_id for c in children)
    edges = [chat_span.start_time, *(child.end_time for child in children)]
    assert edges == [*(child.start_time for child in children), chat_span.end_time]


def test_failed_reply(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: FAIL)) as chat:
        talk(chat)
    found = by_name(spans)
    assert set(found) == {"chat", "queue", "prefill"}  # there was no token
    assert found["chat"].parent is None
    assert found["chat"].status.status_code is trace.StatusCode.ERROR
    assert found["chat"].status.description == "generation failed"


def test_one_that_never_ran(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, num_of_concurrent_executions=1) as chat:
        running, waiting = say(chat.client(), "a"), say(chat.client(), "b")
        waiting.close()
        chat.word()
        assert set(by_name(spans)) == {"chat", "queue"}
        running.close()
        chat.word()


def test_span_of_the_app_is_the_parent(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with running_chat(tmp_path) as chat, trace.get_tracer("host").start_as_current_span("view") as view:
        talk(chat, **CALLER)
    parent = by_name(spans)["chat"].parent
    assert parent is not None and parent.span_id == view.get_span_context().span_id


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from pathlib import Path
from flask_fakes import running_chat, talk
with running_chat(Path(sys.argv[1])) as chat:
    assert talk(chat.client(), "hi") == "ok"
    assert chat.word() == "success"
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""


def test_without_the_package_nothing_happens(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        cwd=tests,
        env={"PYTHONPATH": f".:{tests.parent}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
