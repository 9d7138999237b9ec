"""Prefix cache: what a free slot still holds of its last sequence, and which requests may reuse it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .request import GenerationRequest
from .sequence import Sequence

MIN_REUSED_LEN = 16  # tokens; computing a shorter prefix is as fast as copying it


@dataclass(frozen=True, kw_only=True)
class CachedPrefix:
    """The keys and values of `token_ids` are at the first positions of a free slot."""

    token_ids: list[int]
    owner: str | None  # only requests of this cache owner may reuse more than the shared tokens
    num_shared: int  # leading tokens that every request may reuse
    number: int  # rises with time

    @classmethod
    def of(cls, sequence: Sequence, number: int) -> CachedPrefix | None:
        """Return the cached prefix of a sequence that has ended; None if no request could reuse it."""
        request = sequence.request
        if request.cache_owner is None and request.num_shared < MIN_REUSED_LEN:
            return None
        return cls(
            token_ids=sequence.token_ids[: sequence.num_cached],
            owner=request.cache_owner,
            num_shared=request.num_shared,
            number=number,
        )


@dataclass(frozen=True)
class SlotCopy:
    """A copy of the first `length` cache positions from one slot to another, or an exchange of them."""

    source: int
    target: int
    length: int
    is_swap: bool = False


def num_reusable(request: GenerationRequest, token_ids: Seq[int], owner: str | None, num_shared: int) -> int:
    """Return how many leading prompt tokens can be taken from `token_ids`; 0 if it is not worth it.

    Within one owner's conversation these are all that are equal, otherwise only those that both sides mark
    as shared. The last prompt token is always computed: its logits give the first token of the reply.
    """
    max_len = len(request.prompt_ids) - 1
    if owner is None or owner != request.cache_owner:
        max_len = min(max_len, num_shared, request.num_shared)
    length = common_prefix_len(request.prompt_ids, token_ids, max_len)
    return length if length >= MIN_REUSED_LEN else 0


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
