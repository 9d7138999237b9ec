"""Slots of one worker thread: which sequence has which, what free slots still hold, what runs next."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .prefix_cache import PrefixCache, SlotCopy, num_reusable
from .request import GenerationRequest
from .sequence import Chunk, Sequence

MIN_CHUNK_LEN = 32  # prompt tokens; a forward pass of fewer tokens takes about as long
MIN_AWAITED_LEN = 2 * MIN_CHUNK_LEN  # tokens; to compute fewer takes about as long as another forward pass


class Scheduler:
    """Sequence `running[i]` holds slot i, so the used slots have no gap; all other slots are free.

    A free slot keeps its keys and values until it is needed, so that later requests can reuse them. There may
    be more slots than sequences that run at once, only to keep more.
    """

    def __init__(
        self,
        num_slots: int,
        prefill_chunk_len: int,
        num_kept_slots: int | None = None,
        *,
        keeps_prefixes: bool = True,
    ) -> None:
        """Create a scheduler whose slots are all free.

        :param num_slots: sequences that may run at once
        :param prefill_chunk_len: prompt tokens that one step may compute
        :param num_kept_slots: number of all slots, at least `num_slots`; None: `num_slots`
        :param keeps_prefixes: whether slots hold keys and values that later requests can reuse
        """
        self.num_slots = num_slots
        self.prefill_chunk_len = prefill_chunk_len
        self.running: list[Sequence] = []
        self._keeps_prefixes = keeps_prefixes
        self._prefixes = PrefixCache(num_kept_slots or num_slots)

    def __repr__(self) -> str:
        return f"<Scheduler [{len(self.running)}/{self.num_slots} running]>"

    @property
    def num_free(self) -> int:
        """Sequences that may start now."""
        return self.num_slots - len(self.running)

    @property
    def num_to_prefill(self) -> int:
        """Prompt tokens that are still to be computed."""
        return sum(s.num_prompt - max(s.num_cached, s.awaited_len) for s in self.running if not s.is_decoding)

    # -- slots ---------------------------------------------------------------------------------------

    def add(self, request: GenerationRequest, detokenizer: Detokenizer) -> tuple[Sequence, list[SlotCopy]]:
        """Give a request the next slot; return its sequence and the copies to make first, in this order."""
        if not self.num_free:
            raise RuntimeError(f"{self!r} has no free slot for {request!r}")
        sequence = Sequence(request, len(self.running), detokenizer)
        copies: list[SlotCopy] = []
        if self._keeps_prefixes:
            sequence.num_cached, copies = self._prefixes.fill(request, self.running)
            self._await_prefix(sequence)
        self.running.append(sequence)
        return sequence, copies

    def _await_prefix(self, sequence: Sequence) -> None:
        """Let a sequence wait for the prefix that it shares with another prompt which is being computed."""
        request, least = sequence.request, sequence.num_cached + MIN_AWAITED_LEN - 1
        for other in self.running:
            if other is sequence or other.is_decoding or other.awaited is not None:
                continue
            owner, num_shared = other.request.cache_owner, other.request.num_shared
            if length := num_reusable(request, other.request.prompt_ids, owner, num_shared, least):
                sequence.awaited, sequence.awaited_len = other, length
                least = length

    def reuse_awaited(self) -> list[tuple[Sequence, SlotCopy]]:
        """End the waits for prefixes that have been computed, or never will be.

        :returns: the sequences that reuse one, and the copies to make, in this order
        """
        reusing = []
        for sequence in self.running:
            other = sequence.awaited
            if other is None or (other.num_cached < sequence.awaited_len and other in self.running):
                continue
            sequence.awaited, sequence.awaited_len = None, 0
            if copy := self._prefixes.extend(sequence, self.running):
                reusing.append((sequence, copy))
            self._await_prefix(sequence)
        return reusing

    def remove(self, sequence: Sequence, *, is_reusable: bool = True) -> SlotCopy | None:
        """Free the slot and move the last running sequence into it; return the KV copy required, if any.

        :param is_reusable: whether the keys and values of the sequence are valid
        """
        hole, last = sequence.slot, self.running.pop()
        freed = len(self.running)
        prefix = self._prefixes.keep(freed, sequence if is_reusable and self._keeps_prefixes else None)
        if last is sequence:
            return None
        self.running[hole], last.slot = last, hole
        if prefix is None:
            return SlotCopy(freed, hole, last.num_cached)
        return SlotCopy(freed, hole, max(last.num_cached, len(prefix.token_ids)), is_swap=True)

    def remove_all(self) -> list[Sequence]:
        """Free all slots and trust nothing that they hold; return the sequences that were running."""
        removed, self.running = self.running, []
        self._prefixes.forget_all()
        return removed

    # -- steps ---------------------------------------------------------------------------------------

    def next_chunks(self, budget: int) -> list[Chunk]:
        """Return the next chunks of incomplete prompts, the oldest request first; `budget` tokens at most."""
        chunks = []
        prefilling = [s for s in self.running if not s.is_decoding and s.awaited is None]
        for sequence in sorted(prefilling, key=lambda s: s.request.created_at):
            if budget <= 0:
                break
            chunks.append(Chunk(sequence, min(sequence.num_prompt - sequence.num_cached, budget)))
            budget -= max(chunks[-1].num_tokens, MIN_CHUNK_LEN)
        return chunks

    def decoding(self) -> list[Sequence]:
        """Return the running sequences whose prompts are complete."""
        return [s for s in self.running if s.is_decoding]
