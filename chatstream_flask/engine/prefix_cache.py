"""Prefix cache: the keys and values of earlier tokens, and which requests may reuse them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import NamedTuple

from .request import GenerationRequest
from .sequence import Sequence

MIN_REUSED_LEN = 16  # tokens; computing a shorter prefix is as fast as copying it


@dataclass(frozen=True, kw_only=True)
class CachedPrefix:
    """The keys and values of `token_ids` are at the first positions of a free slot."""

    token_ids: list[int]
    owner: str | None  # only requests of this cache owner may reuse more than the shared tokens
    num_shared: int  # leading tokens that every request may reuse
    used_at: int  # rises with each use of any prefix

    @classmethod
    def of(cls, sequence: Sequence, used_at: int) -> CachedPrefix | None:
        """Return the cached prefix of a sequence that has ended; None if no request could reuse it."""
        request = sequence.request
        if request.cache_owner is None and request.num_shared < MIN_REUSED_LEN:
            return None
        return cls(
            token_ids=sequence.token_ids[: sequence.num_cached],
            owner=request.cache_owner,
            num_shared=request.num_shared,
            used_at=used_at,
        )


@dataclass(frozen=True)
class SlotCopy:
    """A copy of the first `length` cache positions from one slot to another, or an exchange of them."""

    source: int
    target: int
    length: int
    is_swap: bool = False


class Found(NamedTuple):
    """The longest prefix that a request may reuse; its length is 0 if there is none."""

    length: int
    slot: int


class PrefixCache:
    """Finds prefixes in all slots, and decides which free slot keeps what.

    The running sequences hold slots 0 to n-1; the free slots from n on keep the keys and values of sequences
    that have ended, until the slots are needed.
    """

    def __init__(self, num_slots: int) -> None:
        # of each slot; None: a sequence holds it, or it has nothing to reuse
        self._kept: list[CachedPrefix | None] = [None] * num_slots
        self._num_uses = 0

    def fill(self, request: GenerationRequest, running: list[Sequence]) -> tuple[int, list[SlotCopy]]:
        """Empty the first free slot, and fill it with the longest prefix that the request may reuse.

        :returns: the length of the prefix, and the copies to make, in this order
        """
        slot, found = len(running), self._find(request, running)
        if self._is_replaced(found, request):
            copies = self._take_over(found, slot)
        else:
            copies = self._move_away(slot, found)
            if found.length and found.slot != slot:
                copies.append(SlotCopy(found.slot, slot, found.length))
        self._kept[slot] = None
        return found.length, copies

    def extend(self, sequence: Sequence, running: list[Sequence]) -> SlotCopy | None:
        """Let a running sequence that has computed nothing yet reuse what was computed since it started."""
        found = self._find(sequence.request, [other for other in running if other is not sequence])
        if found.length <= sequence.num_cached:
            return None
        sequence.num_cached = found.length
        return SlotCopy(found.slot, sequence.slot, found.length)

    def keep(self, slot: int, sequence: Sequence | None) -> CachedPrefix | None:
        """Keep what a slot holds of a sequence that has ended, if a request could reuse it.

        :param sequence: None: the keys and values are not valid
        """
        self._num_uses += 1
        self._kept[slot] = prefix = None if sequence is None else CachedPrefix.of(sequence, self._num_uses)
        return prefix

    def forget_all(self) -> None:
        """Keep nothing at all."""
        self._kept = [None] * len(self._kept)

    def _find(self, request: GenerationRequest, running: list[Sequence]) -> Found:
        """Return the longest prefix in any slot; a free slot comes before a running sequence."""
        best = Found(0, 0)
        for slot, kept in enumerate(self._kept):
            if kept is not None:
                length = num_reusable(request, kept.token_ids, kept.owner, kept.num_shared, best.length)
                best = max(best, Found(length, slot), key=lambda found: found.length)
        for s in running:
            ids, owner, num_shared = s.token_ids[: s.num_cached], s.request.cache_owner, s.request.num_shared
            length = num_reusable(request, ids, owner, num_shared, best.length)
            best = max(best, Found(length, s.slot), key=lambda found: found.length)
        if best.length and (kept := self._kept[best.slot]) is not None:
            self._num_uses += 1
            self._kept[best.slot] = replace(kept, used_at=self._num_uses)
        return best

    def _is_replaced(self, found: Found, request: GenerationRequest) -> bool:
        """Return whether a free slot need not keep its prefix, as the request continues or repeats it."""
        kept = self._kept[found.slot]
        if kept is None or kept.owner is None or kept.owner != request.cache_owner:
            return False
        return 2 * found.length >= len(kept.token_ids) or found.length == len(request.prompt_ids) - 1

    def _take_over(self, found: Found, slot: int) -> list[SlotCopy]:
        """Bring a prefix from one free slot to another, and what that one keeps to the first."""
        if found.slot == slot:
            return []
        length = self._kept_len(slot)
        self._kept[found.slot] = self._kept[slot]
        if not length:
            return [SlotCopy(found.slot, slot, found.length)]
        return [SlotCopy(found.slot, slot, max(length, found.length), is_swap=True)]

    def _move_away(self, slot: int, found: Found) -> list[SlotCopy]:
        """Move what a free slot keeps to the free slot that was used least recently, but not to `found`."""
        length = self._kept_len(slot)
        others = [i for i in range(slot, len(self._kept)) if i == slot or i != found.slot]
        oldest = min(others, key=self._used_at)
        if not length or oldest == slot:
            return []
        self._kept[oldest] = self._kept[slot]
        return [SlotCopy(slot, oldest, length)]

    def _kept_len(self, slot: int) -> int:
        kept = self._kept[slot]
        return 0 if kept is None else len(kept.token_ids)

    def _used_at(self, slot: int) -> int:
        kept = self._kept[slot]
        return 0 if kept is None else kept.used_at


def num_reusable(
    request: GenerationRequest, token_ids: Seq[int], owner: str | None, num_shared: int, more_than: int = 0
) -> int:
    """Return how many leading prompt tokens can be taken from `token_ids`; 0 if it is not worth it.

    Of the same owner these are all that are equal, otherwise only those that both sides mark as shared. The
    last prompt token is always computed: its logits give the first token of the reply. Where the request asks
    for log-probabilities of its prompt, all tokens are.

    :param more_than: a length that is found already; 0 is returned unless this one is longer
    """
    if request.params.num_prompt_logprobs is not None:
        return 0
    max_len = len(request.prompt_ids) - 1
    if owner is None or owner != request.cache_owner:
        max_len = min(max_len, num_shared, request.num_shared)
    if min(max_len, len(token_ids)) <= more_than:
        return 0
    length = common_prefix_len(request.prompt_ids, token_ids, max_len)
    return length if length >= max(MIN_REUSED_LEN, more_than + 1) else 0


def common_prefix_len(a: Seq[int], b: Seq[int], max_len: int) -> int:
    """Return the length of the common prefix, at most `max_len`."""
    low, high = 0, min(len(a), len(b), max(max_len, 0))  # by bisection: comparing slices is fast
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
