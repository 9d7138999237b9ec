"""Contender: llama.cpp by llama-cpp-python's low-level API, with the same weights and all streams in a batch.

Weights are float32 for float32, and float16 for bfloat16, as llama.cpp is optimized for that. The KV cache is
float16 in both cases, its default and its fastest. Imports neither torch nor transformers, so that it can run
in an interpreter of its own.
"""

from __future__ import annotations

import os
import time
from typing import Any

import llama_cpp
import numpy as np

from ..gguf_file import write_gguf
from ..settings import Settings

BATCH_TOKENS = 2048  # prompt tokens per call


def say_nothing(level: int, text: bytes, data: object) -> None: ...


SAY_NOTHING = llama_cpp.llama_log_callback(say_nothing)  # must stay alive as long as llama.cpp may call it


class LlamaCppContender:
    """A llama.cpp context with one sequence per stream."""

    def __init__(self, settings: Settings) -> None:
        self._vocab_size = settings.shape.vocab_size
        self._context: Any = None
        path = os.path.join(settings.folder, "model.gguf")
        with np.load(settings.weights_file) as weights:
            write_gguf(path, weights, settings.shape, half=settings.dtype != "float32")
        llama_cpp.llama_log_set(SAY_NOTHING, None)
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise RuntimeError("llama.cpp cannot load the converted model")
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def prepare(self, streams: int, context_len: int) -> None:
        self._free_context()
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = streams * context_len
        params.n_batch = BATCH_TOKENS
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = os.cpu_count()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot create a context")

    def play(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        began = time.perf_counter()
        replies, first_token_sec = self._first_tokens(prompts, began)
        for step in range(new_tokens - 1):
            for stream, reply in enumerate(replies):
                self._add(reply[-1], len(prompts[stream]) + step, stream, is_asked=True)
            for reply, token in zip(replies, self._decode(), strict=True):
                reply.append(token)
        return {
            "total_sec": time.perf_counter() - began,
            "first_token_sec": first_token_sec,
            "replies": replies,
        }

    def _first_tokens(self, prompts: list[list[int]], began: float) -> tuple[list[list[int]], list[float]]:
        """Compute the prompts, as many per call as fit; return the first tokens and their times."""
        replies: list[list[int]] = []
        seconds: list[float] = []
        for stream, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                self._add(token, position, stream, is_asked=position == len(prompt) - 1)
            is_last = stream == len(prompts) - 1
            if is_last or self._batch.n_tokens + len(prompts[stream + 1]) > BATCH_TOKENS:
                replies += [[token] for token in self._decode()]
                seconds += [time.perf_counter() - began] * (len(replies) - len(seconds))
        return replies, seconds

    def _add(self, token: int, position: int, stream: int, is_asked: bool) -> None:
        batch, i = self._batch, self._batch.n_tokens
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
        batch.logits[i] = is_asked
        batch.n_tokens += 1

    def _decode(self) -> list[int]:
        """Return the most likely next token of each stream in the batch."""
        asked = [i for i in range(self._batch.n_tokens) if self._batch.logits[i]]
        if llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError("llama_decode failed")
        self._batch.n_tokens = 0
        return [int(self._scores(i).argmax()) for i in asked]

    def _scores(self, i: int) -> Any:
        logits = llama_cpp.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(logits, (self._vocab_size,))

    def _free_context(self) -> None:
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        self._context = None

    def close(self) -> None:
        self._free_context()
