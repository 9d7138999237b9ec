"""Who has which slot, what free slots still hold, who runs in the next step: no torch, threads or clock."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .prefix_cache import CachedPrefix, SlotCopy, num_reusable
from .request import GenerationRequest
from .sequence import Chunk, Sequence

MIN_CHUNK_LEN = 32  # tokens of a prompt: a forward of fewer costs about as much


class Scheduler:
    """The slots of one generation thread: `running[i]` holds slot i, without a gap; the rest are free.

    A free slot keeps what it holds until it is needed, so that the next turn of its conversation goes on from
    there. There may be more slots than sequences run at once, only to keep more.
    """

    def __init__(self, num_slots: int, prefill_chunk_len: int, num_kept_slots: int | None = None) -> None:
        """:param num_kept_slots: all slots there are; None: `num_slots`, which may run"""
        self.num_slots = num_slots
        self.prefill_chunk_len = prefill_chunk_len  # tokens
        self.running: list[Sequence] = []
        self._remains: list[CachedPrefix | None] = [None] * (
            num_kept_slots or num_slots
        )  # None where one runs
        self._num_removed = 0

    def __repr__(self) -> str:
        return f"<Scheduler [{len(self.running)}/{self.num_slots} running]>"

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self.running)

    @property
    def num_to_prefill(self) -> int:
        """Tokens of prompts."""
        return sum(s.num_pending for s in self.running if not s.is_decoding)

    # -- slots ---------------------------------------------------------------------------------------

    def add(self, request: GenerationRequest, detokenizer: Detokenizer) -> tuple[Sequence, list[SlotCopy]]:
        """Also what the runner must move first, in this order."""
        if not self.num_free:
            raise RuntimeError(f"{self!r} has no free slot for {request!r}")
        slot = len(self.running)
        sequence = Sequence(request, slot, detokenizer)
        source, length = self._own_remains(request)
        moves = self._bring(source, slot) if length else self._clear(slot)
        if not length:
            source, length = self._shared_prefix(request)
            moves += [SlotCopy(source, slot, length)] if length and source != slot else []
        sequence.num_cached = length
        self._remains[slot] = None
        self.running.append(sequence)
        return sequence, moves

    def remove(self, sequence: Sequence, *, keeps: bool = True) -> SlotCopy | None:
        """Frees the slot, of which the last running one takes hold: what the runner must move for it.

        :param keeps: what it has computed is sound, and may be gone on from
        """
        hole, last = sequence.slot, self.running.pop()
        self._num_removed += 1
        remains = CachedPrefix.of(sequence, self._num_removed) if keeps else None
        self._remains[len(self.running)] = remains
        if last is sequence:
            return None
        self.running[hole], last.slot = last, hole
        if remains is None:
            return SlotCopy(len(self.running), hole, last.num_cached)
        length = max(last.num_cached, len(remains.token_ids))
        return SlotCopy(len(self.running), hole, length, is_swap=True)

    def remove_all(self) -> list[Sequence]:
        """After a fault: nothing that a slot holds is trusted any more."""
        removed, self.running = self.running, []
        self._remains = [None] * len(self._remains)
        return removed

    def _own_remains(self, request: GenerationRequest) -> tuple[int, int]:
        """The free slot with the most of this request's own conversation, and how many tokens that is."""
        best = (0, 0)
        for slot, remains in enumerate(self._remains):
            if remains is not None and remains.owner == request.cache_owner is not None:
                length = num_reusable(request, remains.token_ids, remains.owner, remains.num_shared)
                best = max(best, (slot, length), key=lambda found: found[1])
        return best

    def _shared_prefix(self, request: GenerationRequest) -> tuple[int, int]:
        """The slot, free or not, with the most of what is nobody's own, and how many tokens that is."""
        held = [(s.slot, s.token_ids[: s.num_cached], s.request.num_shared) for s in self.running]
        held += [(i, it.token_ids, it.num_shared) for i, it in enumerate(self._remains) if it is not None]
        lengths = ((slot, num_reusable(request, ids, None, shared)) for slot, ids, shared in held)
        return max(lengths, key=lambda found: found[1], default=(0, 0))

    def _bring(self, source: int, slot: int) -> list[SlotCopy]:
        """What is in `source` comes to `slot`, and the other way round."""
        if source == slot:
            return []
        length = max(self._num_held(source), self._num_held(slot))
        self._remains[source], self._remains[slot] = self._remains[slot], self._remains[source]
        return [SlotCopy(source, slot, length, is_swap=True)]

    def _clear(self, slot: int) -> list[SlotCopy]:
        """What has not been used for longest is given up: what is in `slot` goes to its place."""
        oldest = min(range(slot, len(self._remains)), key=self._age)
        length = self._num_held(slot)
        if oldest == slot or not length:
            return []
        self._remains[oldest], self._remains[slot] = self._remains[slot], None
        return [SlotCopy(slot, oldest, length)]

    def _num_held(self, slot: int) -> int:
        remains = self._remains[slot]
        return 0 if remains is None else len(remains.token_ids)

    def _age(self, slot: int) -> int:
        remains = self._remains[slot]
        return 0 if remains is None else remains.number

    # -- steps ---------------------------------------------------------------------------------------

    def next_chunks(self, budget: int) -> list[Chunk]:
        """Of the oldest prompts that are not complete, `budget` tokens at the most."""
        chunks = []
        waiting = [s for s in self.running if not s.is_decoding]
        for sequence in sorted(waiting, key=lambda s: s.request.created_at):
            if budget <= 0:
                break
            chunks.append(Chunk(sequence, min(sequence.num_prompt - sequence.num_cached, budget)))
            budget -= max(chunks[-1].num_tokens, MIN_CHUNK_LEN)
        return chunks

    def decoding(self) -> list[Sequence]:
        return [s for s in self.running if s.is_decoding]
