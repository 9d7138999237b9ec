"""RemoteReply: the tokens of one reply, from whichever engine generates them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import aiohttp

from ..engine.reply_text import TokenLogprob
from ..engine.sequence import Sequence
from ..errors import EngineUnavailable
from .dialect import Part, ProtocolError, seed_at, session_of
from .format import is_held, schema_of
from .logprob_pairs import LogprobPairs
from .upstream import Upstream
from .upstreams import Upstreams

logger = logging.getLogger("chatstream_flask")

MAX_TRIES = 4  # engines that a reply is sent to without a new token
PAUSE_SEC = 0.25  # before another try at the only engine; doubled each time
MAX_WAIT_SEC = 10.0  # for an engine that is up
POLL_SEC = 0.02  # while no engine has room
CLOSE_SEC = 0.05
TOKEN_SEC = 30.0  # from one token to the next, after which an engine counts as failed
BUSY = (429, 503, 529)
DEFAULT_BUSY_SEC = 1.0  # where the engine does not say for how long
MAX_BUSY_SEC = 30.0
MAX_ANSWER_LEN = 2000  # bytes of an error that are logged

UNAVAILABLE = "no engine is available; try again later"
FAILED = "the engines failed; try again later"
REFUSED = "the engine refused the request"


class Busy(Exception):
    """An engine takes no requests for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"busy for {seconds:g} s")
        self.seconds = seconds


class Refused(Exception):
    """An engine refuses the request itself, so that no other engine would take it."""


class RemoteReply:
    """Follows the stream of an engine; if that breaks, another engine continues after the tokens so far.

    Belongs to one event loop, and begins when that runs. `fault` is set when no engine can continue.
    """

    def __init__(
        self,
        sequence: Sequence,
        loop: asyncio.AbstractEventLoop,
        session: Any,
        upstreams: Upstreams,
        eos_ids: Collection[int],
        on_news: Callable[[], None],
    ) -> None:
        """Start to generate after the tokens that the sequence has now, in its format if that holds there.

        :param eos_ids: tokens that end a reply; some engines leave them out
        :param on_news: called when there are tokens, or a fault
        """
        self.fault: EngineUnavailable | None = None
        self._sequence = sequence
        self._session = session
        self._upstreams = upstreams
        self._eos_ids = eos_ids
        self._on_news = on_news
        self._arrived: list[int] = []  # and not taken yet
        self._logprobs: list[TokenLogprob] = []  # of these, if asked for
        self._position = len(sequence.token_ids)  # after the tokens that were taken
        self._schema = schema_of(sequence.params.grammar or "") if is_held(sequence) else None
        self._upstream: Upstream | None = None  # the last one
        self._is_reading = False
        self._news_at = 0.0
        self._response: Any = None
        self._task = loop.create_task(self._run())

    def __repr__(self) -> str:
        return f"<RemoteReply {self._sequence!r} at {self._upstream!r}>"

    def is_at(self, position: int) -> bool:
        """Return whether the next token to take is the one at this position of the sequence."""
        return self._position == position

    @property
    def has_schema(self) -> bool:
        """Whether its tokens conform to a JSON schema."""
        return self._schema is not None

    @property
    def next_id(self) -> int | None:
        """The next token to take; None if it has not arrived."""
        return self._arrived[0] if self._arrived else None

    def take(self, most: int | None = None) -> list[int]:
        """Return the new tokens, and append their log-probabilities to the sequence.

        :param most: how many of them; None: all
        """
        ids = self._arrived[:most]
        del self._arrived[:most]
        self._position += len(ids)
        if self._sequence.params.num_logprobs is not None:
            self._sequence.logprobs += self._logprobs[: len(ids)]
            del self._logprobs[: len(ids)]
        return ids

    def check_silence(self) -> None:
        """Break the stream if it has had no token for too long."""
        if self._is_reading and time.monotonic() - self._news_at > TOKEN_SEC:
            self._response.close()

    def close(self) -> None:
        """End the stream; the engine sees its connection closed."""
        self._task.cancel()

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    async def wait_until_closed(self) -> None:
        """Wait a moment until a closed reply has closed its connection, too."""
        await asyncio.wait([self._task], timeout=CLOSE_SEC)
        await asyncio.sleep(0)  # the socket itself is closed in the next round of the loop

    # -- the task ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._generate()
        except Exception:
            logger.exception("the stream of %r failed", self)
            self.fault = EngineUnavailable(FAILED)
        finally:
            self._on_news()

    async def _generate(self) -> None:
        num_tries = 0
        while num_tries < MAX_TRIES:
            upstream = await self._choose()
            if upstream is None:
                self.fault = EngineUnavailable(UNAVAILABLE)
                return
            num_before = self._num_arrived
            try:
                with upstream.running():
                    if await self._follow(upstream):
                        return
            except Busy as busy:
                upstream.set_busy(busy.seconds)
                continue
            except Refused as error:
                logger.error("the engine at %s refused a request: %s", upstream.url, error)
                self.fault = EngineUnavailable(REFUSED)
                return
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ProtocolError) as error:
                upstream.record_failure(str(error) or type(error).__name__)
            if self._schema is not None and self._num_arrived > num_before:
                break  # another engine would begin the format again
            num_tries = 1 if self._num_arrived > num_before else num_tries + 1
            if self._upstreams.up == [upstream]:
                await asyncio.sleep(PAUSE_SEC * 2 ** (num_tries - 1))
        self.fault = EngineUnavailable(FAILED)

    @property
    def _num_arrived(self) -> int:
        return self._position + len(self._arrived)

    async def _choose(self) -> Upstream | None:
        """Return an engine with room; wait for one as long as any is up, else for a moment."""
        request = self._sequence.request
        key = request.cache_owner or request.id
        deadline = time.monotonic() + MAX_WAIT_SEC
        while (upstream := self._upstreams.choose(key, self._upstream)) is None:
            if self._upstreams.up:
                deadline = time.monotonic() + MAX_WAIT_SEC
            elif time.monotonic() >= deadline:
                return None
            await asyncio.sleep(POLL_SEC)
        self._upstream = upstream
        return upstream

    async def _follow(self, upstream: Upstream) -> bool:
        """Read one stream; return whether the reply is complete: some engines have shorter limits.

        :raises Busy: the engine takes no requests now
        :raises Refused: the engine does not take this request
        :raises ProtocolError: the stream broke, or reports an error
        """
        sequence, dialect = self._sequence, upstream.dialect
        assert dialect is not None, "it was probed before it was up"
        request = sequence.request
        prompt_ids = [*sequence.token_ids, *self._arrived]
        num_generated = len(prompt_ids) - sequence.num_prompt
        max_tokens = request.max_generated - num_generated
        if max_tokens <= 0:
            return True
        seed = None if request.params.seed is None else seed_at(request.params.seed, num_generated)
        body = dialect.body(prompt_ids, request, max_tokens, seed, self._schema)
        headers = {"x-session-id": session_of(request) or request.id, **request.headers}
        reader, pairs = dialect.reader(), LogprobPairs()
        try:
            async with self._session.post(
                upstream.url + dialect.path, json=body, headers=headers
            ) as self._response:
                await _check_status(self._response)
                rest = b""
                while data := await self._response.content.readany():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if (event := _data_of(line)) is not None:
                            part = reader.read(event)
                            self._accept(part, pairs, upstream)
                            if part.end is not None:
                                return self._is_complete(part.end)
        finally:
            self._is_reading = False
        raise ProtocolError("its stream broke off")

    def _accept(self, part: Part, pairs: LogprobPairs, upstream: Upstream) -> None:
        """Take over new tokens."""
        ids = part.token_ids
        if self._sequence.params.num_logprobs is not None:
            paired = pairs.push(part)
            self._logprobs += paired
            ids = [logprob.token_id for logprob in paired]
        if not ids:
            return
        if not self._is_reading:
            upstream.record_success()
        self._is_reading, self._news_at = True, time.monotonic()
        self._arrived += ids
        upstream.count_tokens(len(ids))
        self._on_news()

    def _is_complete(self, end: str) -> bool:
        """Return whether the reply is complete as its stream has ended; add an end token if it has none."""
        request = self._sequence.request
        if end == "length":
            return self._num_arrived - self._sequence.num_prompt >= request.max_generated
        last = [*self._sequence.token_ids, *self._arrived][-1]
        if last in request.stop_ids or (last in self._eos_ids and not request.ignores_eos):
            return True
        if request.ignores_eos or not self._eos_ids:
            return False
        self._arrived.append(min(self._eos_ids))
        if request.params.num_logprobs is not None:
            self._logprobs.append(TokenLogprob(self._arrived[-1], 0.0, ()))
        return True


async def _check_status(response: Any) -> None:
    if response.status == 200:
        return
    text = (await response.content.read(MAX_ANSWER_LEN)).decode(errors="replace")
    if response.status in BUSY:
        raise Busy(_retry_after(response.headers.get("Retry-After")))
    if response.status >= 500:
        raise ProtocolError(f"it answers {response.status}: {text}")
    raise Refused(f"{response.status}: {text}")


def _retry_after(given: str | None) -> float:
    """Return the seconds of a Retry-After header, within bounds."""
    try:
        return min(max(float(given or DEFAULT_BUSY_SEC), 0.1), MAX_BUSY_SEC)
    except ValueError:  # a date
        return DEFAULT_BUSY_SEC


def _data_of(line: bytes) -> bytes | None:
    """Return the data of a line of an event stream; None for other lines and for the closing [DONE]."""
    if not line.startswith(b"data:"):
        return None
    data = line[5:].strip()
    return None if data == b"[DONE]" else data
