"""PendingLogprobs: log-probabilities are emitted with the text that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from fakes import Bench, EchoRunner, FakeClock, ask
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.engine.detokenizer import Detokenizer
from chatstream_flask.engine.pending_logprobs import PendingLogprobs
from chatstream_flask.engine.reply_text import TokenLogprob
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.mock.mock_runner import MockParams, MockRunner, encode_mock_prompt


class BytesRunner(EchoRunner):
    """Decodes tokens that are the bytes of a text."""

    def text_decoder(self, request: GenerationRequest) -> BytesDecoder:  # type: ignore[override]
        return BytesDecoder()


@dataclass
class BytesDecoder:
    held: bytearray = field(default_factory=bytearray)

    def push(self, token_id: int) -> str:
        self.held.append(token_id)
        try:
            text = self.held.decode()
        except UnicodeDecodeError:
            return ""
        self.held.clear()
        return text

    def finish(self) -> str:
        return self.held.decode(errors="replace")


def say(text: str, bench: Bench | None = None, **kwargs: object) -> GenerationRequest:
    """Return a finished request whose tokens are the bytes of the text."""
    bench = bench or Bench(slots=[1], make_runner=BytesRunner)
    request = ask("", **{"num_logprobs": 0, **kwargs})
    request.prompt_ids = list(text.encode())
    bench.submit(request)
    bench.finish_all()
    return request


def emitted(request: GenerationRequest, start: int = 0, num_chars: int | None = None) -> bytes:
    return bytes(token.token_id for token in request.token_logprobs(start, num_chars))


def test_one_for_each_token_of_the_text_and_none_for_the_end() -> None:
    request = say("héllo 世界")
    assert emitted(request).decode() == request.text == "héllo 世界"
    assert request.token_logprobs(7) == [TokenLogprob(i, -i / 100, ()) for i in "世界".encode()]
    assert request.outcome and request.outcome.completion_tokens == len(emitted(request)) + 1


def test_none_for_a_request_that_does_not_ask() -> None:
    assert say("hello", num_logprobs=None).token_logprobs(0) == []


def test_a_reader_at_any_place_gets_the_tokens_of_its_text() -> None:
    request = say("a世b")
    assert [emitted(request, 0, i) for i in range(4)] == [b"", b"a", "a世".encode(), "a世b".encode()]
    assert emitted(request, 4, 3) == b"b"
    assert emitted(request, 99) == b""


def test_parts_of_a_character_and_of_a_stop_string_are_held_back() -> None:
    bench = Bench(slots=[1], make_runner=BytesRunner)
    request = ask("", num_logprobs=0, stop=("STOP",))
    request.prompt_ids = list("世STOxSTOP!".encode())
    bench.submit(request)
    steps = []
    while request.outcome is None:
        bench.step()
        steps.append((request.text, emitted(request).decode()))
    assert steps == [("", "")] + [("世", "世")] * 4 + [("世STOx", "世STOx")] * 5
    assert request.outcome.completion_tokens == 11


def test_a_token_that_runs_into_the_stop_string_is_emitted() -> None:
    """Part of its text is shown; tokens wholly within the stop string are never emitted."""
    pieces = ["one ", "two<", "e", "nd> three"]
    detokenizer = Detokenizer(Pieces(pieces), ["<end>"])
    held = PendingLogprobs(detokenizer)
    shown, tokens = "", []
    for i in range(len(pieces)):
        num_before = detokenizer.num_decoded
        shown += detokenizer.push(i)
        held.push(TokenLogprob(i, -1.0, ()), num_before)
        tokens.append([token.token_id for token in held.pop()])
    assert (shown, tokens) == ("one two", [[0], [], [], [1]])
    assert held.pop(is_last=True) == []


@dataclass
class Pieces:
    """A decoder: token i has the text `pieces[i]`."""

    pieces: list[str]

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def finish(self) -> str:
        return ""


@given(
    pieces=st.lists(st.text("ab<", max_size=3), max_size=12),
    stops=st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3),
)
def test_tokens_come_in_order_and_those_without_shown_text_are_the_last(
    pieces: list[str], stops: list[str]
) -> None:
    detokenizer = Detokenizer(Pieces(pieces), stops)
    held = PendingLogprobs(detokenizer)
    shown, ids, num_pushed = "", [], 0
    for i in range(len(pieces)):
        num_before = detokenizer.num_decoded
        shown += detokenizer.push(i)
        held.push(TokenLogprob(i, -1.0, ()), num_before)
        ids += [token.token_id for token in held.pop()]
        num_pushed += 1
        assert shown.startswith("".join(pieces[: len(ids)])) or detokenizer.is_stopped
        if detokenizer.is_stopped:
            break
    shown += detokenizer.finish()
    ids += [token.token_id for token in held.pop(is_last=True)]
    assert ids == list(range(len(ids)))
    joined = "".join(pieces[: len(ids)])
    if detokenizer.is_stopped:
        assert joined.startswith(shown)
        assert len("".join(pieces[: len(ids) - 1])) < len(shown) or not ids
    else:
        assert (shown, len(ids)) == (joined, num_pushed)


def test_text_that_a_filter_holds_back_still_has_its_tokens_at_the_end() -> None:
    request = say("abc", text_filter=HoldAll())
    assert (request.text, emitted(request)) == ("ABC", b"abc")


class HoldAll:
    def __init__(self) -> None:
        self.text = ""

    def push(self, text: str) -> str:
        self.text += text
        return ""

    def finish(self) -> str:
        return self.text.upper()


@pytest.mark.parametrize(("num", "top"), [(0, ()), (5, ((1, 0.0),))])
def test_the_mock_is_certain(num: int, top: tuple[tuple[int, float], ...]) -> None:
    clock = FakeClock()
    runner = MockRunner(MockParams(type="echo"), clock=clock, wait=clock.wait)
    runner.open()
    request = ask("", num_logprobs=num, clock=clock)
    request.prompt_ids = encode_mock_prompt(["hello world"])
    bench = Bench(slots=[1], make_runner=lambda: runner)
    bench.submit(request)
    bench.finish_all()
    first, second = request.token_logprobs(0)
    assert first == TokenLogprob(1, 0.0, top) and second.token_id == 2
