"""PrefillBudget: how much of a prompt is computed between two tokens of the replies that run."""

from __future__ import annotations

from .moving_mean import moving_mean
from .scheduler import MIN_CHUNK_LEN

SMOOTH_SEC = 0.05  # that a running reply may stand still for a prompt
MAX_STEPS = 1.7  # or so many of its own steps, if they take longer


class PrefillBudget:
    """Learns from the steps what a token of a prompt costs; a prompt alone is computed in whole chunks."""

    def __init__(self, most: int) -> None:
        self.most = most  # tokens
        self._decode_sec = 0.0  # means, 0 before the first
        self._token_sec = 0.0

    def budget(self, *, is_decoding: bool) -> int:
        """Tokens of prompts for the next step."""
        if not is_decoding or not self._token_sec:
            return self.most
        sec = max(SMOOTH_SEC, MAX_STEPS * self._decode_sec)
        return int(min(max(sec / self._token_sec, MIN_CHUNK_LEN), self.most))

    def took(self, sec: float, num_prefilled: int, *, is_decoding: bool) -> None:
        """A step with so many tokens of prompts."""
        if num_prefilled:
            of_prompts = sec - self._decode_sec if is_decoding else sec
            self._token_sec = moving_mean(self._token_sec, max(of_prompts, 0.0) / num_prefilled)
        elif is_decoding:
            self._decode_sec = moving_mean(self._decode_sec, sec)
