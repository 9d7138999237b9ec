"""StepExecutor: prefill and decode steps over the slots of one worker thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Sequence
from .async_decode import AsyncDecode
from .batched_prefill import BatchedPrefill, make_batched_prefill
from .decode_step import DecodeStep
from .draft_length_tuner import MAX_TOKENS, DraftLengthTuner
from .host_buffer import HostBuffer
from .placement import is_dispatched
from .prepared_model import PreparedModel
from .sampling.logits_processors import uses_plain_logits
from .sampling.logprobs import Logprobs
from .sampling.prompt_logprobs import prompt_logprobs
from .sampling.sampler import NOT_A_TOKEN, Sampler, greedy
from .slot_model import OwnForward, SlotModel
from .speculation import Speculation, accepted
from .step_inputs import decode_inputs, draft_logits, part_of
from .thread_tuner import ThreadTuner

MAX_LOGITS = 64  # tokens whose logits are in memory at once; 50 MB where a vocabulary has 200,000


class StepExecutor:
    """Holds the KV cache and the buffers of an open ModelRunner.

    A step sends its inputs to the device, runs one forward pass, samples, and fetches the ids.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        *,
        num_slots: int,
        prefill_chunk_len: int,
        async_decode: bool | None,
        draft_tuner: DraftLengthTuner | None,
        thread_tuner: ThreadTuner | None,
    ) -> None:
        """Allocate all memory now; the parameters are those of ModelRunner.

        :param thread_tuner: None: not on CPU
        """
        device, max_len = prepared.device, prepared.context_len
        max_drafted = 0 if draft_tuner is None else MAX_TOKENS
        max_tokens = max(num_slots, max_drafted)
        self._prepared = prepared
        self._num_slots = num_slots
        self._thread_tuner = thread_tuner
        self._speculation = None if draft_tuner is None else Speculation(draft_tuner, max_len)
        self.slots = SlotModel(
            prepared.model, prepared.forward, prepared.shapes, num_slots=num_slots, max_len=max_len
        )
        self._sampler = Sampler(num_slots=num_slots, max_len=max_len, device=device)
        self._positions = torch.arange(max_len, device=device)[None]
        self._prompt = HostBuffer(max_len, torch.long, device)
        self._inputs = HostBuffer(3 * max_tokens, torch.long, device)
        self._ids = HostBuffer(max_tokens, torch.long, device)
        self._logprobs = Logprobs(num_slots=num_slots, device=device)
        self._async_decode = self._make_async_decode(device, async_decode)
        self._batched_prefill: BatchedPrefill | None = make_batched_prefill(
            self.slots,
            max_parts=max_tokens,
            max_tokens=max(prefill_chunk_len, max_drafted),
            device=device,
            captures=device.type == "cuda",
        )

    def _make_async_decode(self, device: torch.device, is_wanted: bool | None) -> AsyncDecode | None:
        prepared = self._prepared
        is_cuda = device.type == "cuda" and not is_dispatched(prepared.model)
        if not (is_cuda if is_wanted is None else is_wanted):
            return None
        captures = is_cuda and not isinstance(prepared.forward, OwnForward)
        step = DecodeStep(self.slots, num_slots=self._num_slots, device=device, captures=captures)
        step.warm_up()
        return AsyncDecode(
            step, self.slots, num_slots=self._num_slots, vocab_size=prepared.vocab_size, device=device
        )

    # -- prefill ---------------------------------------------------------------------------------------

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        if any(sequence.num_cached == sequence.request.num_reused for sequence, _ in chunks):
            self._wait_pending()  # the slot's previous owner may be part of the pending step
        logits = self._prompt_logits(chunks)
        if not any(chunk.is_last for chunk in chunks):
            return lambda: [[] for _ in chunks]
        rows = [chunk.sequence if chunk.is_last else None for chunk in chunks]
        return self._sample(logits[:, None], rows)

    def _prompt_logits(self, chunks: list[Chunk]) -> Tensor:
        """Return logits `[chunks, vocab]` after the last token of each chunk."""
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        is_scored = any(chunk.sequence.params.num_prompt_logprobs is not None for chunk in chunks)
        if is_scored or self._batched_prefill is None or num_tokens > self._batched_prefill.max_tokens:
            return torch.cat([self._single_prompt_logits(chunk) for chunk in chunks])
        with self._tuned_threads(num_tokens, max(chunk.stop for chunk in chunks)):
            return self._batched_prefill.logits([part_of(chunk) for chunk in chunks])

    def _single_prompt_logits(self, chunk: Chunk) -> Tensor:
        """Return logits `[1, vocab]` after the last token of the chunk."""
        num_top = chunk.sequence.params.num_prompt_logprobs
        if num_top is not None:
            return self._scored_prompt_logits(chunk, num_top)
        return self._last_logits(chunk.sequence, chunk.sequence.num_cached, chunk.stop, 1)

    def _scored_prompt_logits(self, chunk: Chunk, num_top: int) -> Tensor:
        """Return logits `[1, vocab]` like `_single_prompt_logits`; write `prompt_logprobs` on the way."""
        sequence = chunk.sequence
        for start in range(sequence.num_cached, chunk.stop, MAX_LOGITS):
            stop = min(start + MAX_LOGITS, chunk.stop)
            logits = self._last_logits(sequence, start, stop, stop - start)
            next_ids = sequence.token_ids[start + 1 : stop + 1]
            sequence.prompt_logprobs[start:] = prompt_logprobs(logits[: len(next_ids)], next_ids, num_top)
        return logits[-1:]

    def _last_logits(self, sequence: Sequence, start: int, stop: int, num_last: int) -> Tensor:
        """Compute some tokens of a prompt; return logits `[num_last, vocab]` after the last ones."""
        with self._tuned_threads(stop - start, stop):
            ids = self._prompt.send(sequence.token_ids[start:stop])[None]
            positions = self._positions[:, start:stop]
            key_len = self.slots.key_len(stop)
            return self.slots.logits(sequence.slot, ids, positions, positions, key_len, num_last)[
                0, -num_last:
            ]

    # -- decode ----------------------------------------------------------------------------------------

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if self._speculation is None:
            return self._decode(sequences)
        num_drafts = self._speculation.begin(sequences)
        if num_drafts and self._is_pending:
            new_ids = self.catch_up(sequences)  # a draft needs all ids before it
            self._speculation.postpone(new_ids)
            return new_ids
        new_ids = self._decode(sequences, 1 + num_drafts)
        self._speculation.end(new_ids)
        return new_ids

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences] if self._async_decode is None else self._async_decode.finish(sequences)

    def _decode(self, sequences: list[Sequence], width: int = 1) -> list[list[int]]:
        """Run one step; each row has at most `width` tokens, its newest one and its drafts."""
        num_rows = 1 + max(sequence.slot for sequence in sequences)
        longest = 1 + max(sequence.num_cached + len(sequence.drafts) for sequence in sequences)
        with self._tuned_threads(num_rows * width, longest):
            if self._async_decode is not None and width == 1 and all(map(uses_plain_logits, sequences)):
                return self._async_decode.decode(sequences)
            if self._is_pending:
                return self.catch_up(sequences)
            rows: list[Sequence | None] = [None] * num_rows
            for sequence in sequences:
                rows[sequence.slot] = sequence
            new_ids = self._sample(self._decode_logits(rows, width, self.slots.key_len(longest)), rows)()
        return [new_ids[sequence.slot] for sequence in sequences]

    def _decode_logits(self, rows: list[Sequence | None], width: int, key_len: int) -> Tensor:
        """Return logits `[rows, width, vocab]`."""
        if width > 1 and self._batched_prefill is not None:
            return draft_logits(self._batched_prefill, rows, width)
        inputs = self._inputs.send(decode_inputs(rows, width, self.slots.max_len))
        ids, positions, cache_positions = inputs.view(3, -1, width)
        return self.slots.logits(0, ids, positions, cache_positions, key_len, width)[:, -width:]

    # -- slots -----------------------------------------------------------------------------------------

    def copy_slot(self, source: int, target: int, length: int) -> None:
        self.slots.cache.copy(source, target, length + self._wait_pending())

    def swap_slots(self, one: int, other: int, length: int) -> None:
        self.slots.cache.swap(one, other, length + self._wait_pending())

    @property
    def _is_pending(self) -> bool:
        """Whether the ids of the newest step are still to come."""
        return self._async_decode is not None and self._async_decode.is_pending

    def _wait_pending(self) -> bool:
        """Wait for the pending step before a slot gets another owner.

        Returns True if there is one: then slots hold one position more than their sequences count.
        """
        return self._async_decode is not None and self._async_decode.wait_pending()

    # -- sampling --------------------------------------------------------------------------------------

    def _sample(self, logits: Tensor, rows: list[Sequence | None]) -> NewIds:
        """Start sampling from logits `[rows, width, vocab]` of each row's newest token and drafts."""
        sampled = self._sampler.sample(logits[:, 0], rows)
        self._logprobs.start(logits[:, 0], sampled, rows)
        width = logits.shape[1]
        if width > 1:
            sampled = torch.cat([sampled[:, None], greedy(logits[:, 1:])], dim=1).flatten()
        self._ids.start_fetch(sampled)
        return partial(self._fetch_ids, rows, width)

    def _fetch_ids(self, rows: list[Sequence | None], width: int) -> list[list[int]]:
        ids: list[int] = self._ids.fetched(len(rows) * width)
        self._logprobs.finish(ids[::width])
        chosen = [ids[i : i + width] for i in range(0, len(ids), width)]
        return [self._new_ids(own_ids, row) for own_ids, row in zip(chosen, rows, strict=True)]

    def _new_ids(self, own_ids: list[int], sequence: Sequence | None) -> list[int]:
        """Return a row's new ids.

        :param own_ids: what the model chose after the newest token and after each of the drafts
        """
        if sequence is None:
            return []
        if NOT_A_TOKEN in own_ids[: 1 + len(sequence.drafts)]:
            self.slots.cache.clear(sequence.slot, 0)
            return [NOT_A_TOKEN]
        return accepted(sequence.drafts, own_ids)

    @contextmanager
    def _tuned_threads(self, num_tokens: int, key_len: int) -> Iterator[None]:
        """Run a forward pass on CPU with the number of threads that is fastest for its size."""
        if self._thread_tuner is None:
            yield
            return
        num_threads = self._thread_tuner.begin(num_tokens, key_len)
        if num_threads != torch.get_num_threads():
            torch.set_num_threads(num_threads)  # affects this thread only
        yield
        self._thread_tuner.end()
