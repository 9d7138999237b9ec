"""RemoteRunner: the Runner whose tokens come from engines over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from ..engine.detokenizer import TextDecoder
from ..engine.reasoning_matcher import ReasoningMatcher
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Matcher, Sequence
from ..errors import EngineUnavailable
from ..inference.text_decoder import reply_decoder
from .client import client_session
from .engines import Engines
from .format import FormatOfEngine, is_held, next_opening_id
from .reply import FAILED, RemoteReply

MAX_WAIT_SEC = 0.005  # for tokens, so that new and cancelled requests are noticed soon
COLLECT_SEC = 0.00004  # least time between two steps for each reply, so that steps take little of the CPU
CHECK_SEC = 1.0  # between two looks for streams that are silent
PLACEHOLDER = 0  # in place of a token that is forced


class RemoteRunner:
    """Holds one stream for each sequence, in an event loop that runs while `decode` waits for tokens.

    Where the sequence has other tokens than its stream, because some were forced, a new stream continues
    after them. Of a reply that may reason before an answer in a format, one stream without the format has the
    reasoning, and another one with it the answer.
    """

    keeps_prefixes = False  # the engines do

    def __init__(self, engines: Engines, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        self.eos_ids = eos_ids
        self._engines = engines
        self._tokenizer = tokenizer
        self._replies: dict[Sequence, RemoteReply] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Any = None
        self._has_news = asyncio.Event()
        self._stepped_at = self._checked_at = 0.0

    def __repr__(self) -> str:
        return f"<RemoteRunner {self._engines!r} [{len(self._replies)} replies]>"

    def open(self) -> None:
        self._loop = asyncio.new_event_loop()

        async def make_session() -> Any:
            return client_session(self._engines.key)

        self._session = self._loop.run_until_complete(make_session())
        self._engines.start()

    def share_cores(self, num_busy: int) -> None: ...

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        for chunk in chunks:
            if chunk.is_last:
                self._follow(chunk.sequence)
        return lambda: [[] for _ in chunks]

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        for sequence in sequences:
            self._follow(sequence)
        if not any(sequence.has_forced for sequence in sequences):
            self._running_loop.run_until_complete(self._wait(len(sequences)))
        return [self._take(sequence) for sequence in sequences]

    def copy_slot(self, source: int, target: int, length: int) -> None: ...

    def swap_slots(self, one: int, other: int, length: int) -> None: ...

    def forget(self, sequence: Sequence) -> None:
        reply = self._replies.pop(sequence, None)
        if reply is not None and not reply.has_ended:
            reply.close()
            self._running_loop.run_until_complete(reply.wait_until_closed())

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        return reply_decoder(self._tokenizer, request)

    def matcher(self, grammar: str) -> Matcher:
        return FormatOfEngine()

    def close(self) -> None:
        if self._loop is None:
            return
        for sequence in list(self._replies):
            self.forget(sequence)
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._loop = None
        self._engines.stop()

    @property
    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError(f"{self!r} is not open")
        return self._loop

    def _follow(self, sequence: Sequence) -> None:
        """Have a stream that continues the sequence, unless its next token is forced."""
        reply = self._replies.get(sequence)
        if reply is not None and (
            sequence.has_forced
            or not reply.is_at(len(sequence.token_ids))
            or (is_held(sequence) and not reply.has_schema)
        ):
            self.forget(sequence)
            reply = None
            del sequence.logprobs[sequence.request.num_generated :]
        if reply is None and not sequence.has_forced:
            self._replies[sequence] = RemoteReply(
                sequence,
                self._running_loop,
                self._session,
                self._engines.upstreams,
                self.eos_ids,
                self._has_news.set,
            )

    async def _wait(self, num_sequences: int) -> None:
        """Wait a moment for tokens, and collect those of several replies."""
        loop = self._running_loop
        timer = loop.call_later(MAX_WAIT_SEC, self._has_news.set)
        await self._has_news.wait()
        timer.cancel()
        if (early_sec := self._stepped_at + num_sequences * COLLECT_SEC - loop.time()) > 0:
            await asyncio.sleep(early_sec)
        self._has_news.clear()
        self._stepped_at = loop.time()
        if self._stepped_at - self._checked_at > CHECK_SEC:
            self._checked_at = self._stepped_at
            for reply in self._replies.values():
                reply.check_silence()

    def _take(self, sequence: Sequence) -> list[int]:
        if sequence.has_forced:
            return self._placeholder(sequence, PLACEHOLDER)
        reply = self._replies[sequence]
        if sequence.grammar_matcher is None or reply.has_schema:
            ids = reply.take()
        else:
            ids = self._take_free(sequence, reply)
        if reply.has_ended and not ids and reply.next_id is None:
            sequence.fault = reply.fault or EngineUnavailable(FAILED)
        return ids

    def _take_free(self, sequence: Sequence, reply: RemoteReply) -> list[int]:
        """Take one token at most, as only its text tells whether the format holds for the next one."""
        opening_id, matcher = next_opening_id(sequence), sequence.grammar_matcher
        if opening_id is not None and reply.next_id not in (None, opening_id):
            assert isinstance(matcher, ReasoningMatcher)
            if matcher.is_opening:
                return self._placeholder(sequence, opening_id)
            matcher.refuse_opening()
            return []
        ids = reply.take(1)
        if reply.next_id is not None:
            self._has_news.set()
        return ids

    def _placeholder(self, sequence: Sequence, token_id: int) -> list[int]:
        """Return a token that the stream does not have."""
        if sequence.params.num_logprobs is not None:
            sequence.logprobs.append(TokenLogprob(token_id, 0.0, ()))
        return [token_id]
