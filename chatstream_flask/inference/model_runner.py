"""ModelRunner: the Runner of a transformers model, for one worker thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from ..config import EngineConfig
from ..engine.detokenizer import TextDecoder
from ..engine.request import GenerationRequest
from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Sequence
from ..grammar.matcher import GrammarCompiler, GrammarMatcher
from .draft_length_tuner import DraftLengthTuner
from .prepared_model import PreparedModel
from .step_executor import StepExecutor
from .text_decoder import reply_decoder
from .thread_tuner import ThreadTuner


class ModelRunner:
    """Runs prefill and decode steps on the worker thread's own CUDA stream, or on CPU.

    On CUDA, `decode` launches a step before it waits for the previous one, so it returns the ids of the
    previous step.

    A row whose logits are not finite, or whose grammar allows no token, gets the id -1 (`NOT_A_TOKEN`) and
    its slot is cleared; other rows are not affected.
    """

    keeps_prefixes = True

    def __init__(
        self,
        prepared: PreparedModel,
        tokenizer: Any,
        *,
        num_slots: int,
        num_cores: int = 1,
        all_cores: int | None = None,
        grammars: GrammarCompiler | None = None,
        more_eos_ids: Iterable[int] = (),
        async_decode: bool | None = None,
        draft_tuner: DraftLengthTuner | None = None,
        prefill_chunk_len: int = EngineConfig.prefill_chunk_len,
    ) -> None:
        """Create a runner; `open` allocates its memory.

        :param num_cores: CPU cores of this thread while other worker threads are busy too
        :param all_cores: CPU cores of this thread while it is the only busy one; None: `num_cores`
        :param grammars: None: structured output is not supported
        :param more_eos_ids: tokens that end a reply although the model's files do not say so
        :param async_decode: launch a decode step before the ids of the previous one are known; None: on CUDA
        :param draft_tuner: None: no speculative decoding
        :param prefill_chunk_len: maximum number of tokens in one call of `prefill`
        """
        self.eos_ids = eos_ids(prepared.model, tokenizer) | frozenset(more_eos_ids)
        self.num_slots = num_slots
        self.max_len = prepared.context_len
        self._num_cores = num_cores
        self._all_cores = all_cores or num_cores
        self._thread_tuner: ThreadTuner | None = None
        self._prepared = prepared
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._async_decode = async_decode
        self._prefill_chunk_len = prefill_chunk_len
        self._draft_tuner = draft_tuner
        self._stream: torch.cuda.Stream | None = None
        self._executor: StepExecutor | None = None

    def __repr__(self) -> str:
        state = "closed" if self._executor is None else repr(self._executor.slots.cache)
        kind = self._prepared.model.config.model_type
        return f"<ModelRunner {kind} on {self._prepared.device}: {state}>"

    def open(self) -> None:
        device = self._prepared.device
        if device.type == "cpu":
            self._thread_tuner = ThreadTuner(self._all_cores)
        self._prepared.prepare(self.num_slots)
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # Wait for the weights only: synchronizing the whole device is an error while another thread
            # captures a CUDA graph.
            self._stream.wait_stream(torch.cuda.default_stream(device))
        with self._context():
            self._executor = StepExecutor(
                self._prepared,
                num_slots=self.num_slots,
                prefill_chunk_len=self._prefill_chunk_len,
                async_decode=self._async_decode,
                draft_tuner=self._draft_tuner,
                thread_tuner=self._thread_tuner,
            )

    def share_cores(self, num_busy: int) -> None:
        if self._thread_tuner is not None:
            self._thread_tuner.max_threads = self._all_cores if num_busy <= 1 else self._num_cores

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        with self._running() as executor:
            return partial(self._wait_for, executor.prefill(chunks))

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        with self._running() as executor:
            return executor.catch_up(sequences)

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        with self._running() as executor:
            return executor.decode(sequences)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        with self._running() as executor:
            executor.copy_slot(source, target, length)

    def swap_slots(self, one: int, other: int, length: int) -> None:
        with self._running() as executor:
            executor.swap_slots(one, other, length)

    def forget(self, sequence: Sequence) -> None: ...

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        return reply_decoder(self._tokenizer, request)

    def matcher(self, grammar: str) -> GrammarMatcher:
        if self._grammars is None:
            raise RuntimeError(f"{self!r} was created without a GrammarCompiler")
        return self._grammars.matcher(grammar)

    def close(self) -> None:
        """Free the slots' memory; calling it again has no effect."""
        if self._stream is not None:
            self._stream.synchronize()
        self._executor = self._stream = None

    def _wait_for(self, new_ids: NewIds) -> list[list[int]]:
        with self._running():
            return new_ids()

    @contextmanager
    def _running(self) -> Iterator[StepExecutor]:
        if self._executor is None:
            raise RuntimeError(f"{self!r} is not open")
        with self._context():
            yield self._executor

    @contextmanager
    def _context(self) -> Iterator[None]:
        on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with torch.inference_mode(), on_stream:
            yield


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return all ids that end a reply: those of the generation config and that of the tokenizer."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = list(named) if isinstance(named, (list, tuple)) else [named]
    ids.append(getattr(tokenizer, "eos_token_id", None))
    return frozenset(i for i in ids if i is not None)
