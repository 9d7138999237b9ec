"""Where readers find a reply: in the engine of this process, or through another server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .engine import Engine
from .outcome import FinishReason, Outcome
from .readers import Reader
from .reasoning import Piece
from .request import GenerationRequest, Status


class ReplySource(Protocol):
    """A reply as its readers see it. Two sources of the same reply in one process are equal."""

    @property
    def num_chars(self) -> int | None:
        """Characters so far, which a reader may have; None where this process may not know the newest."""

    @property
    def is_local(self) -> bool:
        """Whether this process generates it."""

    @property
    def is_waiting(self) -> bool: ...

    @property
    def is_started(self) -> bool:
        """Whether it has, or had, a slot."""

    @property
    def queue_place(self) -> tuple[int, float | None] | None:
        """Position in the queue and estimated seconds until it runs; None if it does not wait there."""

    @property
    def flush_interval_sec(self) -> float:
        """How long a reader should collect text before it sends it to its client."""

    def attach(self, reader: Reader) -> None: ...

    def detach(self, reader: Reader, grace_sec: float) -> None:
        """Remove a reader; after the last one the reply ends unless another one comes within `grace_sec`."""

    def read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        """Return what follows the first `offset` characters, and the outcome once everything is there.

        Wait up to `timeout` seconds for something new; return ([], None) if nothing came.
        """

    def wait_for_outcome(self, timeout: float) -> None: ...

    def cancel(self) -> None: ...

    def answer_now(self) -> None:
        """End the reasoning, so that the answer begins."""

    def answer_step(self, step_id: str, *, is_confirmed: bool) -> bool:
        """Confirm or decline a function call; return False if it does not wait for that."""


@dataclass(frozen=True)
class LocalReply:
    """Source of a reply that this process generates."""

    engine: Engine
    generation: GenerationRequest

    def __repr__(self) -> str:
        return repr(self.generation)

    @property
    def num_chars(self) -> int:
        return self.generation.num_chars

    @property
    def is_local(self) -> bool:
        return True

    @property
    def is_waiting(self) -> bool:
        return self.generation.status is Status.WAITING

    @property
    def is_started(self) -> bool:
        return self.generation.started_at is not None

    @property
    def queue_place(self) -> tuple[int, float | None] | None:
        return self.engine.queue_place(self.generation)

    @property
    def flush_interval_sec(self) -> float:
        return self.engine.flush_interval_sec

    def attach(self, reader: Reader) -> None:
        self.generation.attach(reader)

    def detach(self, reader: Reader, grace_sec: float) -> None:
        if self.generation.detach(reader, grace_sec) and not grace_sec:
            self.engine.cancel(self.generation, FinishReason.DISCONNECTED)

    def read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        return self.generation.read(offset, timeout)

    def wait_for_outcome(self, timeout: float) -> None:
        self.generation.wait_for_outcome(timeout)

    def cancel(self) -> None:
        self.engine.cancel(self.generation)

    def answer_now(self) -> None:
        self.generation.answer_now()

    def answer_step(self, step_id: str, *, is_confirmed: bool) -> bool:
        return False
