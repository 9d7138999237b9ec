"""ModelRunner: prefill and decode of one generation thread's sequences, on its own CUDA stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..engine.detokenizer import TextDecoder
from ..engine.request import GenerationRequest
from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Sequence
from ..grammar.matcher import GrammarCompiler, GrammarMatcher
from .async_decode import AsyncDecode
from .batched_prefill import BatchedPrefill, Part, make_batched_prefill
from .cpu_threads import ThreadTuner
from .decode_step import DecodeStep
from .host_buffer import HostBuffer
from .num_drafts import MAX_TOKENS, DraftLengthTuner
from .placement import is_dispatched
from .prepared_model import PreparedModel
from .sampling.logits_processors import goes_by_scores_alone
from .sampling.logprobs import Logprobs
from .sampling.sampler import NOT_A_TOKEN, Sampler, greedy
from .slot_model import OwnForward, SlotModel
from .speculation import Speculation, accepted
from .text_decoder import make_text_decoder


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a runner has only between `open` and `close`."""

    slots: SlotModel
    sampler: Sampler
    positions: Tensor  # 0 .. max_len-1, [1, max_len]
    prompt: HostBuffer
    inputs: HostBuffer
    ids: HostBuffer
    logprobs: Logprobs
    ahead: AsyncDecode | None
    packed: BatchedPrefill | None  # None: one prompt after the other


class ModelRunner:
    """The Runner of a transformers model. A step is: numbers in, one forward, one sampler call, ids out.

    On CUDA the ids of a step come out when the next one is on its way: `decode` gives them one call later.

    A row whose logits are not numbers, or whose grammar cannot go on, gets the id -1 (`NOT_A_TOKEN`) and its
    slot is wiped; the other rows are as if nothing had happened.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        tokenizer: Any,
        *,
        num_slots: int,
        num_cores: int = 1,  # on CPU: of this thread, while the others work too
        all_cores: int | None = None,  # while it works alone; None: the same
        grammars: GrammarCompiler | None = None,
        looks_ahead: bool | None = None,
        draft_choice: DraftLengthTuner | None = None,
        prefill_chunk_len: int = 256,
    ) -> None:
        """
        :param prefill_chunk_len: tokens that `prefill` is given at the most
        :param looks_ahead: launches a step before it knows the ids of the last one; None: on CUDA
        :param draft_choice: None: it never speculates
        """
        self.eos_ids = eos_ids(prepared.model, tokenizer)
        self.num_slots = num_slots
        self.max_len = prepared.context_len
        self._num_cores = num_cores
        self._all_cores = all_cores or num_cores
        self._cores: ThreadTuner | None = None
        self._prepared = prepared
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._looks_ahead = looks_ahead
        self._prefill_chunk_len = prefill_chunk_len
        self._speculation = None if draft_choice is None else Speculation(draft_choice, self.max_len)
        self._stream: torch.cuda.Stream | None = None
        self._opened: Opened | None = None

    def __repr__(self) -> str:
        state = "closed" if self._opened is None else repr(self._opened.slots.cache)
        kind = self._prepared.model.config.model_type
        return f"<ModelRunner {kind} on {self._prepared.device}: {state}>"

    def open(self) -> None:
        device = self._prepared.device
        if device.type == "cpu":
            self._cores = ThreadTuner(self._all_cores)
        self._prepared.prepare(self.num_slots)
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # For the weights. To wait for the whole device is an error while another thread captures a graph.
            self._stream.wait_stream(torch.cuda.default_stream(device))
        with self._context():
            slots = SlotModel(
                self._prepared.model,
                self._prepared.forward,
                self._prepared.shapes,
                num_slots=self.num_slots,
                max_len=self.max_len,
            )
            most_tokens = self.num_slots if self._speculation is None else max(self.num_slots, MAX_TOKENS)
            self._opened = Opened(
                slots=slots,
                sampler=Sampler(num_slots=self.num_slots, max_len=self.max_len, device=device),
                positions=torch.arange(self.max_len, device=device)[None],
                prompt=HostBuffer(self.max_len, torch.long, device),
                inputs=HostBuffer(3 * most_tokens, torch.long, device),
                ids=HostBuffer(most_tokens, torch.long, device),
                logprobs=Logprobs(num_slots=self.num_slots, device=device),
                ahead=self._lookahead(slots, device),
                packed=self._packed_prefill(slots, device),
            )

    def _lookahead(self, slots: SlotModel, device: torch.device) -> AsyncDecode | None:
        is_cuda = device.type == "cuda" and not is_dispatched(self._prepared.model)
        if not (is_cuda if self._looks_ahead is None else self._looks_ahead):
            return None
        replays = is_cuda and not isinstance(self._prepared.forward, OwnForward)
        step = DecodeStep(slots, num_slots=self.num_slots, device=device, replays=replays)
        step.warm_up()
        return AsyncDecode(
            step, slots, num_slots=self.num_slots, vocab_size=self._prepared.vocab_size, device=device
        )

    def _packed_prefill(self, slots: SlotModel, device: torch.device) -> BatchedPrefill | None:
        most_drafted = 0 if self._speculation is None else MAX_TOKENS
        return make_batched_prefill(
            slots,
            most_parts=max(self.num_slots, most_drafted),
            most_tokens=max(self._prefill_chunk_len, most_drafted),
            device=device,
            replays=device.type == "cuda",
        )

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        with self._computing() as it:
            if any(sequence.num_cached == sequence.request.num_reused for sequence, _ in chunks):
                self._settle(it)  # the slot's last owner may have been in a step that is on its way
            logits = self._prompt_logits(it, chunks)
            if not any(chunk.is_last for chunk in chunks):
                return lambda: [[] for _ in chunks]
            rows = [chunk.sequence if chunk.is_last else None for chunk in chunks]
            new_ids = self._sampling(it, logits[:, None], rows)
        return partial(self._fetched, new_ids)

    def _fetched(self, new_ids: NewIds) -> list[list[int]]:
        with self._computing():
            return new_ids()

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        with self._computing() as it:
            return [[] for _ in sequences] if it.ahead is None else it.ahead.finish(sequences)

    def _prompt_logits(self, it: Opened, chunks: list[Chunk]) -> Tensor:
        """`[chunks, vocab]` of the last token of each."""
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        if it.packed is None or num_tokens > it.packed.most_tokens:
            return torch.cat([self._prefilled(it, chunk) for chunk in chunks])
        with self._on_cores(num_tokens, max(chunk.stop for chunk in chunks)):
            return it.packed.logits([part_of(chunk) for chunk in chunks])

    def _prefilled(self, it: Opened, chunk: Chunk) -> Tensor:
        """Logits `[1, vocab]` of the last token."""
        sequence, start, stop = chunk.sequence, chunk.sequence.num_cached, chunk.stop
        with self._on_cores(chunk.num_tokens, stop):
            ids = it.prompt.send(sequence.token_ids[start:stop])[None]
            columns = it.positions[:, start:stop]
            return it.slots.logits(sequence.slot, ids, columns, columns, it.slots.key_len(stop))[:, -1]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if self._speculation is None:
            return self._step(sequences)
        num_drafts = self._speculation.begin(sequences, is_late=self._is_late)
        new_ids = self._step(sequences, 1 + num_drafts)
        self._speculation.end(new_ids)
        return new_ids

    def _step(self, sequences: list[Sequence], width: int = 1) -> list[list[int]]:
        """Each row computes its newest token and its drafts, `width` tokens at the most."""
        num_rows = 1 + max(sequence.slot for sequence in sequences)
        longest = 1 + max(sequence.num_cached + len(sequence.drafts) for sequence in sequences)
        with self._computing() as it, self._on_cores(num_rows * width, longest):
            if it.ahead is not None and width == 1 and all(map(goes_by_scores_alone, sequences)):
                return it.ahead.decode(sequences)
            if self._settle(it):
                assert it.ahead is not None
                return it.ahead.finish(sequences)
            rows: list[Sequence | None] = [None] * num_rows
            for sequence in sequences:
                rows[sequence.slot] = sequence
            new_ids = self._decoded(it, rows, width, it.slots.key_len(longest))
        return [new_ids[sequence.slot] for sequence in sequences]

    def _decoded(self, it: Opened, rows: list[Sequence | None], width: int, key_len: int) -> list[list[int]]:
        if width > 1 and it.packed is not None:
            return self._sampling(it, drafted_logits(it.packed, rows, width), rows)()
        ids, positions, columns = it.inputs.send(self._step_inputs(rows, width)).view(3, -1, width)
        logits = it.slots.logits(0, ids, positions, columns, key_len, width)[:, -width:]
        return self._sampling(it, logits, rows)()

    def share_cores(self, num_busy: int) -> None:
        if self._cores is not None:
            self._cores.most = self._all_cores if num_busy <= 1 else self._num_cores

    def copy_slot(self, source: int, target: int, length: int) -> None:
        with self._computing() as it:
            it.slots.cache.move(source, target, length + self._settle(it))

    def swap_slots(self, one: int, other: int, length: int) -> None:
        with self._computing() as it:
            it.slots.cache.swap(one, other, length + self._settle(it))

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        return make_text_decoder(self._tokenizer, skip_special_tokens=not request.shows_special_tokens)

    def matcher(self, grammar: str) -> GrammarMatcher:
        if self._grammars is None:
            raise RuntimeError(f"{self!r} was made without a compiler of grammars")
        return self._grammars.matcher(grammar)

    def close(self) -> None:
        """Gives the memory back; may be called twice."""
        if self._stream is not None:
            self._stream.synchronize()
        self._opened = self._stream = None

    @property
    def _is_late(self) -> bool:
        """The newest ids are not known to Python yet."""
        ahead = None if self._opened is None else self._opened.ahead
        return ahead is not None and ahead.is_flying

    def _settle(self, it: Opened) -> bool:
        """Before a slot changes hands. True: slots hold one column more than Python has counted."""
        return it.ahead is not None and it.ahead.settle()

    def _step_inputs(self, rows: list[Sequence | None], width: int) -> list[int]:
        """Token ids, then positions, then columns, `[rows, width]` each.

        Padding is id 0 in the scratch column, at the position before it, as positions of a row never fall.
        """
        ids: list[int] = []
        positions: list[int] = []
        columns: list[int] = []
        for sequence in rows:
            first = 0 if sequence is None else sequence.num_cached
            tokens = [] if sequence is None else newest(sequence)
            stop, num_spare = first + len(tokens), width - len(tokens)
            ids += tokens + [0] * num_spare
            positions += [*range(first, stop), *[max(stop - 1, 0)] * num_spare]
            columns += [*range(first, stop), *[self.max_len] * num_spare]
        return ids + positions + columns

    def _sampling(self, it: Opened, logits: Tensor, rows: list[Sequence | None]) -> NewIds:
        """Of each row for logits `[rows, width, vocab]` of its newest token and its drafts."""
        sampled = it.sampler.sample(logits[:, 0], rows)
        it.logprobs.start(logits[:, 0], sampled, rows)
        width = logits.shape[1]
        if width > 1:
            sampled = torch.cat([sampled[:, None], greedy(logits[:, 1:])], dim=1).flatten()
        it.ids.start_fetch(sampled)
        return partial(self._sampled, it, rows, width)

    def _sampled(self, it: Opened, rows: list[Sequence | None], width: int) -> list[list[int]]:
        ids: list[int] = it.ids.fetched(len(rows) * width)
        it.logprobs.finish(ids[::width])
        chosen = [ids[i : i + width] for i in range(0, len(ids), width)]
        return [self._new_ids(it, own_ids, row) for own_ids, row in zip(chosen, rows, strict=True)]

    def _new_ids(self, it: Opened, own_ids: list[int], sequence: Sequence | None) -> list[int]:
        """Of a row for which the model has chosen `own_ids`, one for each token that was computed."""
        if sequence is None:
            return []
        if NOT_A_TOKEN in own_ids[: 1 + len(sequence.drafts)]:
            it.slots.cache.clear(sequence.slot, 0)
            return [NOT_A_TOKEN]
        return accepted(sequence.drafts, own_ids)

    @contextmanager
    def _computing(self) -> Iterator[Opened]:
        if self._opened is None:
            raise RuntimeError(f"{self!r} is not open")
        with self._context():
            yield self._opened

    @contextmanager
    def _on_cores(self, num_tokens: int, key_len: int) -> Iterator[None]:
        if self._cores is None:
            yield
            return
        num_cores = self._cores.begin(num_tokens, key_len)
        if num_cores != torch.get_num_threads():
            torch.set_num_threads(num_cores)  # of this thread
        yield
        self._cores.end()

    @contextmanager
    def _context(self) -> Iterator[None]:
        on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with torch.inference_mode(), on_stream:
            yield


def part_of(chunk: Chunk) -> Part:
    sequence, start = chunk.sequence, chunk.sequence.num_cached
    return Part(sequence.slot, sequence.token_ids[start : chunk.stop], start)


def newest(sequence: Sequence) -> list[int]:
    """Its newest token and its drafts: what a step computes of it."""
    return [sequence.token_ids[sequence.num_cached], *sequence.drafts]


def drafted_logits(packed: BatchedPrefill, rows: list[Sequence | None], width: int) -> Tensor:
    """`[rows, width, vocab]` of the newest token and the drafts of each; what is padding may be anything."""
    parts: list[Part] = []
    places: list[int] = []
    for sequence in rows:
        tokens = [] if sequence is None else newest(sequence)
        places += [len(parts) + i if i < len(tokens) else 0 for i in range(width)]
        if sequence is not None:
            parts += [Part(sequence.slot, [token], sequence.num_cached + i) for i, token in enumerate(tokens)]
    logits = packed.logits(parts)
    return logits[torch.tensor(places, device=logits.device)].view(len(rows), width, -1)


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a reply: the generation config's (one or several) and the tokenizer's."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = list(named) if isinstance(named, (list, tuple)) else [named]
    ids.append(getattr(tokenizer, "eos_token_id", None))
    return frozenset(i for i in ids if i is not None)
