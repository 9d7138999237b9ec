"""SteadyDecode: the decode rate of a bare engine, without any prefill."""

from __future__ import annotations

from random import Random
from typing import Any

from .bare_engine import BareEngine
from .settings import Settings
from .token_ids import random_tokens


class SteadyDecode:
    """Streams that decode after a prompt which is already in the KV cache.

    Each stream has its own prompt; for a shorter context length its first tokens are used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: BareEngine | None = None
        self._prompts: list[list[int]] = []

    def prepare(self, streams: int, longest: int, new_tokens: int) -> None:
        self.close()
        random, vocab_size = Random(streams), self._settings.shape.vocab_size
        self._prompts = [random_tokens(random, longest, vocab_size) for _ in range(streams)]
        self._engine = BareEngine(self._settings, streams, longest + new_tokens)

    def compute_prompts(self, context_len: int) -> None:
        self._play(context_len, 1)

    def measure(self, context_len: int, new_tokens: int) -> dict[str, Any]:
        """Measure the rate from the last stream's first token until the first stream ends."""
        replies = self._play(context_len, new_tokens)
        times = [reply.times.at for reply in replies]
        begin, end = max(at[0] for at in times), min(at[-1] for at in times)
        num_tokens = sum(begin < at <= end for of_one in times for at in of_one)
        if end <= begin:
            raise RuntimeError("the streams did not overlap; raise --new-tokens")
        return {"tokens_per_s": num_tokens / (end - begin)}

    def _play(self, context_len: int, new_tokens: int) -> Any:
        assert self._engine is not None
        replies = [
            self._engine.ask(prompt[:context_len], new_tokens, owner=str(stream))
            for stream, prompt in enumerate(self._prompts)
        ]
        for reply in replies:
            reply.wait()
        return replies

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None
