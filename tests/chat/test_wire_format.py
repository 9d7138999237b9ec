"""Wire formats: the bytes that are sent for each event."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from flask_fakes import parse_event
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.chat.wire_format import (
    ChatStreamFrames,
    NewlineDelimitedJSON,
    PlainText,
    ServerSentEvents,
    WireFormat,
    choose,
)
from chatstream_flask.client import read_events
from chatstream_flask.config import WireFormatName
from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.errors import ChatStreamError, GenerationError

DONE = Outcome(
    finish_reason=FinishReason.LENGTH,
    prompt_tokens=7,
    completion_tokens=11,
    queue_sec=0.25,
    first_token_sec=0.5,
    total_sec=2.5,
)
FAILED = Outcome(finish_reason=FinishReason.ERROR, error="generation failed")


def test_events() -> None:
    wire = ServerSentEvents("m1")
    queued = {"message_id": "m1", "position": 3, "eta_s": 1.3}
    assert wire.queue(3, 1.26) == f"id: 0\nevent: queue\ndata: {json.dumps(queued)}\n\n".encode()
    assert b'"position": 1, "eta_s": null' in wire.queue(1, None)
    assert wire.start() == b'id: 0\nevent: start\ndata: {"message_id": "m1"}\n\n'
    assert wire.heartbeat() == b": heartbeat\n\n"


@pytest.mark.parametrize(
    "text", ["a\nb\r\nc\rd", "\n\n", "東京 \U0001f600", "data: x\nid: 9", "\u2028\u0085\x00"]
)
def test_text_never_breaks_an_event(text: str) -> None:
    chunk = ServerSentEvents("m1").text(text, 9)
    assert chunk.count(b"\n") == 4
    assert b"\r" not in chunk
    event = parse_event(chunk.decode().removesuffix("\n\n"))
    assert (event.name, event.id, event.data) == ("text", 9, {"text": text})


@given(texts=st.lists(st.text(min_size=1), max_size=5), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_events_are_read_as_they_were_sent_however_the_network_cuts_them(
    texts: list[str], cuts: list[int]
) -> None:
    wire = ServerSentEvents("m1")
    sent = wire.start() + b"".join(wire.text(text, i) + wire.heartbeat() for i, text in enumerate(texts))
    ends = sorted({0, *(cut % len(sent) for cut in cuts), len(sent)})
    events = list(read_events(sent[start:end] for start, end in pairwise(ends)))
    assert [event.name for event in events] == ["start"] + ["text"] * len(texts)
    assert [(event.id, event.data["text"]) for event in events[1:]] == [
        (str(i), t) for i, t in enumerate(texts)
    ]


@given(text=st.text(min_size=1))
def test_a_line_of_json_is_one_line(text: str) -> None:
    line = NewlineDelimitedJSON("m1").text(text, 9)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line
    assert json.loads(line)["text"] == text


def test_done() -> None:
    event = parse_event(
        ServerSentEvents("m1").end(DONE, {"num_dropped_turns": 0}, 40).decode().removesuffix("\n\n")
    )
    assert (event.name, event.id) == ("done", 40)
    assert event.data == {
        "finish_reason": "length",
        "usage": {"prompt_tokens": 7, "cached_tokens": 0, "completion_tokens": 11, "total_tokens": 18},
        "timings": {
            "queue_ms": 250.0,
            "time_to_first_token_ms": 500.0,
            "total_ms": 2500.0,
            "tokens_per_second": 5.0,
        },
        "message_id": "m1",
        "num_dropped_turns": 0,
    }


def test_done_without_a_token() -> None:
    outcome = Outcome(finish_reason=FinishReason.TIMEOUT, total_sec=1)
    data = json.loads(ServerSentEvents("m1").end(outcome, {}, 0).split(b"data: ")[1])
    assert data["timings"]["time_to_first_token_ms"] is None
    assert data["timings"]["tokens_per_second"] is None


def test_an_error_is_told_in_band_and_cuts_plain_text_short() -> None:
    event = parse_event(
        ServerSentEvents("m1").end(FAILED, {"num_dropped_turns": 0}, 4).decode().removesuffix("\n\n")
    )
    assert (event.name, event.id) == ("error", 4)
    assert event.data == {"code": "generation_failed", "message": "generation failed"}
    with pytest.raises(GenerationError, match="generation failed"):
        PlainText("m1").end(FAILED, {}, 4)


@pytest.mark.parametrize(
    "reason", [reason for reason in FinishReason if reason.value not in ("stop", "length")]
)
@pytest.mark.parametrize("wire", [PlainText("m1"), ChatStreamFrames("m1")])
def test_no_incomplete_text_ends_well(wire: WireFormat, reason: FinishReason) -> None:
    with pytest.raises(ChatStreamError):
        wire.end(Outcome(finish_reason=reason), {}, 4)


def test_plain_text_is_text_and_nothing_else() -> None:
    wire = PlainText("m1")
    assert wire.queue(1, 1.0) == wire.start() == wire.heartbeat() == wire.end(DONE, {}, 3) == b""
    assert wire.text("日本\n", 3) == "日本\n".encode()


@pytest.mark.parametrize(
    ("accept", "format_class"),
    [
        ("", PlainText),
        ("*/*", PlainText),
        ("text/plain", PlainText),
        ("text/event-stream", ServerSentEvents),
        ("Text/Event-Stream, */*;q=0.1", ServerSentEvents),
    ],
)
def test_choice(accept: str, format_class: type[WireFormat]) -> None:
    assert type(choose(WireFormatName.AUTO, accept, "m1")) is format_class


@pytest.mark.parametrize("wire", [PlainText("m1"), ServerSentEvents("m1")])
def test_headers(wire: WireFormat) -> None:
    assert wire.content_type.endswith("; charset=utf-8")
    assert wire.headers["X-Accel-Buffering"] == "no"
    assert wire.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in wire.headers["Cache-Control"]
    assert "no-transform" in wire.headers["Cache-Control"]
    assert "Connection" not in wire.headers
    assert wire.headers["Content-Encoding"] == "identity"


def test_lines_of_json() -> None:
    wire = NewlineDelimitedJSON("m1")
    outcome = Outcome(finish_reason=FinishReason.STOP, prompt_tokens=3, completion_tokens=2)
    chunks = [
        wire.queue(2, 1.25),
        wire.start(),
        wire.text("日本\n", 3),
        wire.heartbeat(),
        wire.end(outcome, {"num_dropped_turns": 0}, 3),
    ]
    assert all(chunk.endswith(b"\n") and chunk.count(b"\n") == 1 for chunk in chunks)
    queue, start, text, done = (json.loads(chunk) for chunk in chunks if chunk.strip())
    assert queue == {"event": "queue", "message_id": "m1", "position": 2, "eta_s": 1.2}
    assert start == {"event": "start", "message_id": "m1"}
    assert text == {"event": "text", "text": "日本\n"}
    assert (done["event"], done["finish_reason"], done["message_id"]) == ("done", "stop", "m1")
    failed = json.loads(wire.end(Outcome(finish_reason=FinishReason.ERROR, error="no"), {}, 3))
    assert failed == {"event": "error", "code": "generation_failed", "message": "no"}


def test_frames_of_chatstream() -> None:
    """Whatever the client's Accept header says; each frame replaces the one before."""
    wire = choose(WireFormatName.CHATSTREAM, "text/event-stream", "m1")
    assert isinstance(wire, ChatStreamFrames)
    assert wire.content_type == "text/plain; charset=utf-8"
    assert wire.queue(1, None) == wire.start() == wire.heartbeat() == b""
    frames = wire.text(" Hello", 6) + wire.text(", 世界 ", 11)
    assert frames.decode() == "Hello<::EOS::>Hello, 世界<::EOS::>"
    assert wire.end(Outcome(finish_reason=FinishReason.STOP), {}, 11) == b""
