"""Prefill budget: how many prompt tokens a step computes while replies are running."""

from __future__ import annotations

from .moving_mean import moving_mean
from .scheduler import MIN_CHUNK_LEN

MAX_PAUSE_SEC = 0.05  # pause between two tokens of a running reply that a prompt may cause
MAX_PAUSE_STEPS = 1.7  # or this many decode steps, if they take longer


class PrefillBudget:
    """Measures the cost of a prompt token, to keep the pauses of running replies short.

    While no reply is running, prompts are computed in chunks of `max_tokens`.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._decode_sec = 0.0  # moving means, 0 before the first value
        self._sec_per_token = 0.0

    def num_tokens(self, *, is_decoding: bool) -> int:
        """Return the number of prompt tokens for the next step."""
        if not is_decoding or not self._sec_per_token:
            return self.max_tokens
        pause_sec = max(MAX_PAUSE_SEC, MAX_PAUSE_STEPS * self._decode_sec)
        return int(min(max(pause_sec / self._sec_per_token, MIN_CHUNK_LEN), self.max_tokens))

    def record_step(self, step_sec: float, num_prefilled: int, *, is_decoding: bool) -> None:
        """Learn from a step that computed `num_prefilled` prompt tokens."""
        if num_prefilled:
            prefill_sec = step_sec - self._decode_sec if is_decoding else step_sec
            self._sec_per_token = moving_mean(self._sec_per_token, max(prefill_sec, 0.0) / num_prefilled)
        elif is_decoding:
            self._decode_sec = moving_mean(self._decode_sec, step_sec)
