"""PromptLookup: what a sequence may say next, found in what it was told and has said before."""

from __future__ import annotations

LENGTHS = (3, 2)  # tokens of an n-gram; the longest that is found counts
MAX_INDEXED = 4096  # tokens of one step, so that a long prompt holds up nobody
FIRST_SHARE = 0.5
WEIGHT = 0.2  # of the newest draft in a share


class PromptLookup:
    """Drafts of one sequence: the tokens that followed its last n-gram where that stood before.

    Keeps where each n-gram stood last, so that a step looks at nothing but its new tokens; and how many of
    the drafts are right, for each length of n-gram. Also drafts that were only compared count, so that it is
    known without a price when a reply begins to repeat something.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # an n-gram -> the place after it
        self._next = min(LENGTHS)  # the first such place that is not in it yet
        self._shares = dict.fromkeys(LENGTHS, FIRST_SHARE)
        self._length = LENGTHS[0]  # of the n-gram that was found

    def propose(self, token_ids: list[int], num: int) -> list[int]:
        """The next `num` tokens, or none; `token_ids` only grow from call to call."""
        self._index(token_ids)
        for length in LENGTHS:
            start = self._after.get(tuple(token_ids[-length:]))
            if start is not None:
                self._length = length
                period = len(token_ids) - start
                return [token_ids[start + i % period] for i in range(num)]  # on into the drafts themselves
        return []

    def learn(self, proposed: list[int], new_ids: list[int]) -> None:
        """What came after the last proposal: right drafts, then one token in place of a wrong one."""
        for draft, new_id in zip(proposed, new_ids, strict=False):
            share = self._shares[self._length]
            self._shares[self._length] = share + WEIGHT * ((draft == new_id) - share)

    def num_expected(self, num: int) -> float:
        """How many of the next `num` drafts will be right: as one is only if all before it are."""
        share = self._shares[self._length]
        return sum(share**i for i in range(1, num + 1))

    def _index(self, token_ids: list[int]) -> None:
        """All n-grams but the last ones, after which nothing stands yet."""
        stop = min(len(token_ids), self._next + MAX_INDEXED)
        for end in range(self._next, stop):
            for length in LENGTHS:
                if length <= end:
                    self._after[tuple(token_ids[end - length : end])] = end
        self._next = max(self._next, stop)
