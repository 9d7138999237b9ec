"""LogprobPairs: the log-probability of each token that an engine sent."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from ..engine.reply_text import TokenLogprob
from .dialect import Part


class LogprobPairs:
    """Pairs token ids with log-probabilities that come later, in the same order."""

    def __init__(self) -> None:
        self._ids: deque[int] = deque()
        self._logprobs: deque[TokenLogprob] = deque()

    def push(self, part: Part) -> list[TokenLogprob]:
        """Return a log-probability for each token that has one now; at the end, for all.

        A token that ends the reply has none.
        """
        self._ids += part.token_ids
        self._logprobs += part.logprobs
        paired = []
        while self._ids and (self._logprobs or part.end):
            token_id = self._ids.popleft()
            found = self._logprobs.popleft() if self._logprobs else TokenLogprob(token_id, 0.0, ())
            paired.append(replace(found, token_id=token_id))
        return paired
