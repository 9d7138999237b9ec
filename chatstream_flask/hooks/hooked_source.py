"""Where readers find a reply whose text passes hooks, or in which the model calls functions."""

from __future__ import annotations

from ..engine.engine import Engine
from ..engine.outcome import FinishReason, Outcome
from ..engine.readers import Reader
from ..engine.reasoning import Piece
from ..engine.reply_source import LocalReply, ReplySource
from .hooked_reply import HookedReply


class HookedSource:
    """ReplySource of such a reply; all its readers in this process have the same object."""

    is_local = True

    def __init__(self, engine: Engine, hooked: HookedReply) -> None:
        self._engine = engine
        self._hooked = hooked

    def __repr__(self) -> str:
        return repr(self._newest)

    @property
    def _newest(self) -> LocalReply:
        return LocalReply(self._engine, self._hooked.generation)

    @property
    def num_chars(self) -> int:
        return self._hooked.shown.num_chars

    @property
    def is_waiting(self) -> bool:
        return self._newest.is_waiting and not self._hooked.is_continued

    @property
    def is_started(self) -> bool:
        return self._newest.is_started or self._hooked.is_continued

    @property
    def queue_place(self) -> tuple[int, float | None] | None:
        return None if self._hooked.is_continued else self._newest.queue_place

    @property
    def flush_interval_sec(self) -> float:
        return self._engine.flush_interval_sec

    def attach(self, reader: Reader) -> None:
        self._newest.attach(reader)

    def detach(self, reader: Reader, grace_sec: float) -> None:
        if self._hooked.generation.detach(reader, grace_sec) and not grace_sec:
            self._hooked.cancel(self._engine, FinishReason.DISCONNECTED)

    def read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        """Read as `GenerationRequest.read` does.

        Without a timeout nothing passes the hooks: so reads the thread that copies replies for other servers,
        which waits for nobody.
        """
        hooked = self._hooked
        if timeout and hooked.shown.num_chars <= offset:
            hooked.wait(offset, timeout)
            hooked.pump()
        elif not timeout:
            hooked.pump_if_nobody_does()
        outcome = hooked.generation.outcome  # first: once it is there, all text has passed
        return hooked.shown.pieces_after(offset), outcome

    def wait_for_outcome(self, timeout: float) -> None:
        self._newest.wait_for_outcome(timeout)

    def cancel(self) -> None:
        self._hooked.cancel(self._engine)

    def answer_now(self) -> None:
        self._hooked.generation.answer_now()

    def answer_step(self, step_id: str, *, is_confirmed: bool) -> bool:
        return self._hooked.answer_step(step_id, is_confirmed=is_confirmed)


def source_of(engine: Engine, hooked: HookedReply) -> ReplySource:
    """Return where readers find a reply that has been started."""
    return HookedSource(engine, hooked) if hooked.passes else LocalReply(engine, hooked.generation)
