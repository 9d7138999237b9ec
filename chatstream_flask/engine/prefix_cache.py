"""What a free slot still holds of the last sequence that had it, and who may go on from there."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from .request import GenerationRequest
from .sequence import Sequence

MIN_REUSED_LEN = 16  # tokens; a shorter prefix is computed as fast as it is copied


@dataclass(frozen=True, kw_only=True)
class CachedPrefix:
    """Keys and values of `token_ids` are in the slot's first columns."""

    token_ids: list[int]
    owner: str | None
    num_shared: int  # first tokens that are nobody's own
    number: int  # rises with time

    @classmethod
    def of(cls, sequence: Sequence, number: int) -> CachedPrefix | None:
        """None if nobody could go on from there."""
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
    """Of the first `length` columns of slot `source` to slot `target`, and back if it is a swap."""

    source: int
    target: int
    length: int
    is_swap: bool = False


def num_reusable(request: GenerationRequest, token_ids: Seq[int], owner: str | None, num_shared: int) -> int:
    """How many first tokens of a prompt may be taken from `token_ids`, 0 if it is not worth it.

    All that are equal within one owner's conversation, else only what both say is nobody's own. The last
    token of a prompt is always computed: its logits give the first token of the reply.
    """
    most = len(request.prompt_ids) - 1
    if owner is None or owner != request.cache_owner:
        most = min(most, num_shared, request.num_shared)
    length = common_len(request.prompt_ids, token_ids, most)
    return length if length >= MIN_REUSED_LEN else 0


def common_len(a: Seq[int], b: Seq[int], most: int) -> int:
    """Of their common prefix, `most` at the most; by halving, as comparing slices is fast."""
    low, high = 0, min(len(a), len(b), max(most, 0))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
