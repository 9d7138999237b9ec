"""Who has which slot and who runs in the next step: no torch, no threads, no clock."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .request import GenerationRequest
from .sequence import Sequence


class Scheduler:
    """The slots of one generation thread: `running[i]` holds slot i, without a gap."""

    def __init__(self, num_slots: int, prefill_chunk_len: int) -> None:
        self.num_slots = num_slots
        self.prefill_chunk_len = prefill_chunk_len  # tokens
        self.running: list[Sequence] = []

    def __repr__(self) -> str:
        return f"<Scheduler [{len(self.running)}/{self.num_slots} running]>"

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self.running)

    def add(self, request: GenerationRequest, detokenizer: Detokenizer) -> Sequence:
        if not self.num_free:
            raise RuntimeError(f"{self!r} has no free slot for {request!r}")
        sequence = Sequence(request, len(self.running), detokenizer)
        self.running.append(sequence)
        return sequence

    def remove(self, sequence: Sequence) -> Sequence | None:
        """Frees the slot. Returns the sequence that now holds it, whose keys and values must move there."""
        last = self.running.pop()
        if last is sequence:
            return None
        last.slot = sequence.slot
        self.running[last.slot] = last
        return last

    def remove_all(self) -> list[Sequence]:
        removed, self.running = self.running, []
        return removed

    def next_prefill(self) -> tuple[Sequence, int] | None:
        """The oldest incomplete prompt and how many of its tokens to compute in this step."""
        waiting = [s for s in self.running if not s.is_decoding]
        if not waiting:
            return None
        oldest = min(waiting, key=lambda s: s.request.created_at)
        return oldest, min(oldest.num_prompt - oldest.num_cached, self.prefill_chunk_len)

    def decoding(self) -> list[Sequence]:
        return [s for s in self.running if s.is_decoding]
