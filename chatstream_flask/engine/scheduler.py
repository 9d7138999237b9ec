"""Slots of one worker thread: which sequence has which, what free slots still hold, what runs next."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .prefix_cache import CachedPrefix, SlotCopy, num_reusable
from .request import GenerationRequest
from .sequence import Chunk, Sequence

MIN_CHUNK_LEN = 32  # prompt tokens; a forward pass of fewer tokens takes about as long


class Scheduler:
    """Sequence `running[i]` holds slot i, so the used slots have no gap; all other slots are free.

    A free slot keeps its keys and values until it is needed, so that the next turn of the conversation can
    reuse them. There may be more slots than sequences that run at once, only to keep more.
    """

    def __init__(self, num_slots: int, prefill_chunk_len: int, num_kept_slots: int | None = None) -> None:
        """Create a scheduler whose slots are all free.

        :param num_slots: sequences that may run at once
        :param prefill_chunk_len: prompt tokens that one step may compute
        :param num_kept_slots: number of all slots, at least `num_slots`; None: `num_slots`
        """
        self.num_slots = num_slots
        self.prefill_chunk_len = prefill_chunk_len
        self.running: list[Sequence] = []
        # of each slot; None: a sequence holds it, or it has nothing to reuse
        self._cached: list[CachedPrefix | None] = [None] * (num_kept_slots or num_slots)
        self._num_removed = 0

    def __repr__(self) -> str:
        return f"<Scheduler [{len(self.running)}/{self.num_slots} running]>"

    @property
    def num_free(self) -> int:
        """Sequences that may start now."""
        return self.num_slots - len(self.running)

    @property
    def num_to_prefill(self) -> int:
        """Prompt tokens that are still to be computed."""
        return sum(s.num_pending for s in self.running if not s.is_decoding)

    # -- slots ---------------------------------------------------------------------------------------

    def add(self, request: GenerationRequest, detokenizer: Detokenizer) -> tuple[Sequence, list[SlotCopy]]:
        """Give a request the next slot; return its sequence and the copies to make first, in this order."""
        if not self.num_free:
            raise RuntimeError(f"{self!r} has no free slot for {request!r}")
        slot = len(self.running)
        sequence = Sequence(request, slot, detokenizer)
        source, length = self._find_own_prefix(request)
        if length:
            copies = self._swap(source, slot)
        else:
            copies = self._evict(slot)
            source, length = self._find_shared_prefix(request)
            if length and source != slot:
                copies.append(SlotCopy(source, slot, length))
        sequence.num_cached = length
        self._cached[slot] = None
        self.running.append(sequence)
        return sequence, copies

    def remove(self, sequence: Sequence, *, is_reusable: bool = True) -> SlotCopy | None:
        """Free the slot and move the last running sequence into it; return the KV copy required, if any.

        :param is_reusable: whether the keys and values of the sequence are valid
        """
        hole, last = sequence.slot, self.running.pop()
        self._num_removed += 1
        prefix = CachedPrefix.of(sequence, self._num_removed) if is_reusable else None
        self._cached[len(self.running)] = prefix
        if last is sequence:
            return None
        self.running[hole], last.slot = last, hole
        if prefix is None:
            return SlotCopy(len(self.running), hole, last.num_cached)
        length = max(last.num_cached, len(prefix.token_ids))
        return SlotCopy(len(self.running), hole, length, is_swap=True)

    def remove_all(self) -> list[Sequence]:
        """Free all slots and trust nothing that they hold; return the sequences that were running."""
        removed, self.running = self.running, []
        self._cached = [None] * len(self._cached)
        return removed

    def _find_own_prefix(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the free slot with the longest prefix from the request's conversation, and its length."""
        best = (0, 0)
        for slot, prefix in enumerate(self._cached):
            if prefix is not None and prefix.owner == request.cache_owner is not None:
                length = num_reusable(request, prefix.token_ids, prefix.owner, prefix.num_shared)
                best = max(best, (slot, length), key=lambda found: found[1])
        return best

    def _find_shared_prefix(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the slot holding the longest reusable shared prefix, and its length."""
        held = [(s.slot, s.token_ids[: s.num_cached], s.request.num_shared) for s in self.running]
        held += [(i, it.token_ids, it.num_shared) for i, it in enumerate(self._cached) if it is not None]
        lengths = ((slot, num_reusable(request, ids, None, shared)) for slot, ids, shared in held)
        return max(lengths, key=lambda found: found[1], default=(0, 0))

    def _swap(self, source: int, slot: int) -> list[SlotCopy]:
        """Exchange the contents of two free slots."""
        if source == slot:
            return []
        length = max(self._cached_len(source), self._cached_len(slot))
        self._cached[source], self._cached[slot] = self._cached[slot], self._cached[source]
        return [SlotCopy(source, slot, length, is_swap=True)]

    def _evict(self, slot: int) -> list[SlotCopy]:
        """Empty a free slot: drop the least recently used prefix and move this slot's prefix there."""
        oldest = min(range(slot, len(self._cached)), key=self._last_used)
        length = self._cached_len(slot)
        if oldest == slot or not length:
            return []
        self._cached[oldest], self._cached[slot] = self._cached[slot], None
        return [SlotCopy(slot, oldest, length)]

    def _cached_len(self, slot: int) -> int:
        prefix = self._cached[slot]
        return 0 if prefix is None else len(prefix.token_ids)

    def _last_used(self, slot: int) -> int:
        prefix = self._cached[slot]
        return 0 if prefix is None else prefix.number

    # -- steps ---------------------------------------------------------------------------------------

    def next_chunks(self, budget: int) -> list[Chunk]:
        """Return the next chunks of incomplete prompts, the oldest request first; `budget` tokens at most."""
        chunks = []
        prefilling = [s for s in self.running if not s.is_decoding]
        for sequence in sorted(prefilling, key=lambda s: s.request.created_at):
            if budget <= 0:
                break
            chunks.append(Chunk(sequence, min(sequence.num_prompt - sequence.num_cached, budget)))
            budget -= max(chunks[-1].num_tokens, MIN_CHUNK_LEN)
        return chunks

    def decoding(self) -> list[Sequence]:
        """Return the running sequences whose prompts are complete."""
        return [s for s in self.running if s.is_decoding]
