"""Contender: the continuous batching of transformers, without HTTP."""

from __future__ import annotations

import time
from typing import Any

from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from ..model import make_model
from ..settings import Settings

RESULT_SEC = 1200


class BatchingContender:
    """The manager gets the hints that `generate_batch` gives it; its cache is limited to what is needed."""

    def __init__(self, settings: Settings) -> None:
        self._model = make_model(settings.shape, settings.dtype, settings.device)
        self._manager: Any = None

    def prepare(self, streams: int, context_len: int) -> None:
        self.close()
        self._manager = self._model.init_continuous_batching(
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=num_blocks(streams, context_len)),
            workload_hints=WorkloadHints(context_len // 2, context_len // 2, streams),
        )
        self._manager.warmup()
        self._manager.start()

    def play(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        asked_at: dict[str, float] = {}
        results: dict[str, Any] = {}
        for prompt in prompts:
            now = time.perf_counter()
            asked_at[
                self._manager.add_request(
                    prompt, max_new_tokens=new_tokens, record_timestamps=True, eos_token_id=-1
                )
            ] = now
        while len(results) < len(prompts):
            result = self._manager.get_result(timeout=RESULT_SEC)
            if result is None or result.error:
                raise RuntimeError(f"no result: {result and result.error}")
            results[result.request_id] = result
        ordered = [results[request_id] for request_id in asked_at]
        return {
            "total_sec": max(r.timestamps[-1] for r in ordered) - min(asked_at.values()),
            "first_token_sec": [r.timestamps[0] - asked_at[r.request_id] for r in ordered],
            "replies": [r.generated_tokens for r in ordered],
        }

    def close(self) -> None:
        if self._manager is not None:
            self._manager.stop()
        self._manager = None


def num_blocks(streams: int, context_len: int) -> int:
    """Return the number of cache blocks: twice as many as all streams together need."""
    config: Any = ContinuousBatchingConfig()
    page_size: int = getattr(config, "page_size", None) or config.block_size  # its name until 5.17
    return max(64, 2 * streams * -(-context_len // page_size))
