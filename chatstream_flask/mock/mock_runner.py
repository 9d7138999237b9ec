"""Mock replies: fixed phrases at a fixed rate, without a model; for front ends, tests and load tests.

Sampling parameters change nothing. Each token is certain: its log-probability is 0, and no other token has
one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..config import check_names, check_number
from ..engine.detokenizer import TextDecoder
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Matcher, Sequence
from ..errors import ConfigError
from .phrases import CLOSING, LONG, REASONING, ROUND, split_mock_text

SEPARATOR = "\x1e"  # between the user messages of a prompt
CLOSING_ID = 2**31 - 1  # ends the reasoning early
EOS_ID = 0  # the token at index i of a reply has the id i + 1
MAX_WAIT_SEC = 0.1  # wait of one step, so that new and cancelled requests are noticed soon
MAX_SEC = 3600

REPLIES: dict[str, Callable[[list[str]], str]] = {
    "round": lambda messages: ROUND[(len(messages) - 1) % len(ROUND)],
    "long": lambda messages: LONG,
    "echo": lambda messages: messages[-1],
    "reasoning": lambda messages: f"{REASONING}{CLOSING}{ROUND[(len(messages) - 1) % len(ROUND)]}",
}


@dataclass(frozen=True, kw_only=True)
class MockParams:
    """Settings of the mock: `mock_params` of `ChatStream`."""

    type: str = "round"
    initial_wait_sec: float = 0.0  # from the start of a request to its reply
    time_per_token_sec: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or self.type not in REPLIES:
            raise ConfigError(f"mock type must be one of {', '.join(REPLIES)}, not {self.type!r}")
        check_number("initial_wait_sec", self.initial_wait_sec, 0, MAX_SEC)
        check_number("time_per_token_sec", self.time_per_token_sec, 0, MAX_SEC)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> MockParams:
        check_names("mock_params", dict(given), cls)
        return cls(**given)


def encode_mock_prompt(messages: list[str]) -> list[int]:
    """Return the code points of the user messages, from which the mock gets the turn and the last message."""
    return [ord(char) for char in SEPARATOR.join(m.replace(SEPARATOR, " ") for m in messages)]


def decode_mock_prompt(prompt_ids: list[int]) -> list[str]:
    """Return the user messages of a prompt."""
    return "".join(map(chr, prompt_ids)).split(SEPARATOR)


class MockRunner:
    """Generates one token of every reply at each tick; ticks are `time_per_token_sec` apart."""

    eos_ids = frozenset({EOS_ID})
    keeps_prefixes = True

    def __init__(
        self,
        params: MockParams,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Create a runner.

        :param wait: waits for the given seconds; None: also ends when the runner is closed
        """
        self.params = params
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._last_due = 0.0  # time of the latest tick
        self._replies: WeakKeyDictionary[GenerationRequest, list[str]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<MockRunner {self.params.type} [{len(self._replies)} replies]>"

    def open(self) -> None:
        self._last_due = self._clock()

    def share_cores(self, num_busy: int) -> None: ...

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        return lambda: [[] for _ in chunks]

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        ready = [self._ready_at(sequence) for sequence in sequences]
        due = max(self._last_due, min(ready)) + self.params.time_per_token_sec
        if due > self._clock():
            self._wait(min(due - self._clock(), MAX_WAIT_SEC))
        now = self._clock()
        if due > now:
            return [[] for _ in sequences]
        self._last_due = max(due, now - self.params.time_per_token_sec)  # catches up one tick at most
        return [self._next_ids(s) if at <= now else [] for s, at in zip(sequences, ready, strict=True)]

    def copy_slot(self, source: int, target: int, length: int) -> None: ...

    def swap_slots(self, one: int, other: int, length: int) -> None: ...

    def forget(self, sequence: Sequence) -> None: ...

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        return MockTextDecoder(self._reply(request))

    def matcher(self, grammar: str) -> Matcher:
        raise ConfigError("the mock does not support structured output")

    def close(self) -> None:
        self._closed.set()

    def _ready_at(self, sequence: Sequence) -> float:
        return (sequence.request.started_at or 0.0) + self.params.initial_wait_sec

    def _next_ids(self, sequence: Sequence) -> list[int]:
        reply, said = self._reply(sequence.request), sequence.token_ids[sequence.num_prompt :]
        index = len(said)
        if CLOSING_ID in said:
            index += reply.index(CLOSING.rstrip()) - said.index(CLOSING_ID)
        token_id = EOS_ID if index >= len(reply) else index + 1
        if sequence.params.num_logprobs is not None:
            top = ((token_id, 0.0),) if sequence.params.num_logprobs else ()
            sequence.logprobs.append(TokenLogprob(token_id, 0.0, top))
        return [token_id]

    def _reply(self, request: GenerationRequest) -> list[str]:
        """Return the tokens of the reply, which are kept as long as the request lives."""
        if request not in self._replies:
            text = REPLIES[self.params.type](decode_mock_prompt(request.prompt_ids))
            self._replies[request] = split_mock_text(text)
        return self._replies[request]


class MockTextDecoder:
    """Returns the tokens of a reply by their ids."""

    def __init__(self, reply: list[str]) -> None:
        self._reply = reply

    def push(self, token_id: int) -> str:
        return CLOSING if token_id == CLOSING_ID else self._reply[token_id - 1]

    def finish(self) -> str:
        return ""
