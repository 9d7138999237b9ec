"""Prefill budget: how many prompt tokens a step computes."""

from __future__ import annotations

from ..config import EngineConfig
from .moving_mean import moving_mean
from .scheduler import MIN_CHUNK_LEN

MAX_PAUSE_SEC = 0.05  # of running replies, for prompts; nobody notices so short a pause


class PrefillBudget:
    """Measures the cost of a prompt token, to weigh first tokens against the pauses of running replies.

    While replies are running, the prompts of a step take at most the share `priority` of its time, or
    MAX_PAUSE_SEC: the next tokens of the running replies wait for that long. While none is running there is
    nothing to weigh, and prompts are computed in chunks of `max_tokens`.
    """

    def __init__(self, max_tokens: int, priority: float = EngineConfig.prefill_priority) -> None:
        """Create a budget that has measured nothing.

        :param max_tokens: prompt tokens that one step may compute
        :param priority: 0 to 1; with 1, prompts are computed as if no reply was running
        """
        self.max_tokens = max_tokens
        self.priority = priority
        self._decode_sec: dict[int, float] = {}  # moving means, by the number of rows
        self._sec_per_token = 0.0  # moving mean, 0 before the first value

    def num_tokens(self, num_decoding: int) -> int:
        """Return the number of prompt tokens for a step beside the decode step of `num_decoding` replies."""
        if not num_decoding or self.priority == 1 or not self._sec_per_token:
            return self.max_tokens
        pause_sec = max(MAX_PAUSE_SEC, self.priority / (1 - self.priority) * self.decode_sec(num_decoding))
        return int(min(max(pause_sec / self._sec_per_token, MIN_CHUNK_LEN), self.max_tokens))

    def prefill_sec(self, num_tokens: int) -> float:
        """Return how long so many prompt tokens will take, as far as is known."""
        return num_tokens * self._sec_per_token

    def decode_sec(self, num_rows: int) -> float:
        """Return the time of a decode step without prompts; 0 before the first of at most that many rows."""
        known = max((rows for rows in self._decode_sec if rows <= num_rows), default=None)
        return 0.0 if known is None else self._decode_sec[known]

    def record_step(self, step_sec: float, num_prefilled: int, num_decoded: int) -> None:
        """Learn from a step of `num_prefilled` prompt tokens and `num_decoded` rows."""
        if num_prefilled:
            prefill_sec = max(step_sec - self.decode_sec(num_decoded), 0.0)
            self._sec_per_token = moving_mean(self._sec_per_token, prefill_sec / num_prefilled)
        elif num_decoded:
            known = self._decode_sec.get(num_decoded)
            self._decode_sec[num_decoded] = moving_mean(known, step_sec)
