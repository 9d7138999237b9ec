"""ModelRunner: prefill and decode of one generation thread's sequences, on its own CUDA stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .core_choice import CoreChoice
from .decode_step import DecodeStep
from .detokenizer import TextDecoder
from .fused_decoder import FusedDecoder
from .grammar_matcher import GrammarCompiler, GrammarMatcher
from .host_buffer import HostBuffer
from .logprobs import Logprobs
from .lookahead import Lookahead
from .placement import is_dispatched
from .prepared_model import PreparedModel
from .request import GenerationRequest
from .sampler import NOT_A_TOKEN, Sampler
from .sequence import Sequence
from .slot_model import SlotModel
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
    ahead: Lookahead | None


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
    ) -> None:
        """:param looks_ahead: launches a step before it knows the ids of the last one; None: on CUDA"""
        self.eos_ids = eos_ids(prepared.model, tokenizer)
        self.num_slots = num_slots
        self.max_len = prepared.context_len
        self._num_cores = num_cores
        self._all_cores = all_cores or num_cores
        self._cores: CoreChoice | None = None
        self._prepared = prepared
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._looks_ahead = looks_ahead
        self._stream: torch.cuda.Stream | None = None
        self._opened: Opened | None = None

    def __repr__(self) -> str:
        state = "closed" if self._opened is None else repr(self._opened.slots.cache)
        kind = self._prepared.model.config.model_type
        return f"<ModelRunner {kind} on {self._prepared.device}: {state}>"

    def open(self) -> None:
        device = self._prepared.device
        if device.type == "cpu":
            self._cores = CoreChoice(self._all_cores)
        self._prepared.prepare(self.num_slots)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the weights were made ready on the default stream
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with self._context():
            slots = SlotModel(
                self._prepared.model,
                self._prepared.forward,
                self._prepared.shapes,
                num_slots=self.num_slots,
                max_len=self.max_len,
            )
            self._opened = Opened(
                slots=slots,
                sampler=Sampler(num_slots=self.num_slots, max_len=self.max_len, device=device),
                positions=torch.arange(self.max_len, device=device)[None],
                prompt=HostBuffer(self.max_len, torch.long, device),
                inputs=HostBuffer(3 * self.num_slots, torch.long, device),
                ids=HostBuffer(self.num_slots, torch.long, device),
                logprobs=Logprobs(num_slots=self.num_slots, device=device),
                ahead=self._lookahead(slots, device),
            )

    def _lookahead(self, slots: SlotModel, device: torch.device) -> Lookahead | None:
        is_cuda = device.type == "cuda" and not is_dispatched(self._prepared.model)
        if not (is_cuda if self._looks_ahead is None else self._looks_ahead):
            return None
        replays = is_cuda and isinstance(self._prepared.forward, FusedDecoder)
        step = DecodeStep(slots, num_slots=self.num_slots, device=device, replays=replays)
        return Lookahead(
            step, slots, num_slots=self.num_slots, vocab_size=self._prepared.vocab_size, device=device
        )

    def prefill(self, sequence: Sequence, num_tokens: int) -> list[int]:
        start = sequence.num_cached
        stop = start + num_tokens
        with self._computing() as it, self._on_cores(num_tokens, stop):
            if start == sequence.request.num_reused:
                self._settle(it)  # the slot's last owner may have been in a step that is on its way
            ids = it.prompt.send(sequence.token_ids[start:stop])[None]
            columns = it.positions[:, start:stop]
            logits = it.slots.logits(sequence.slot, ids, columns, columns, it.slots.key_len(stop))[:, -1]
            return self._sampled(it, logits, [sequence]) if stop == len(sequence.token_ids) else []

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        num_rows = 1 + max(sequence.slot for sequence in sequences)
        longest = 1 + max(sequence.num_cached for sequence in sequences)
        with self._computing() as it, self._on_cores(num_rows, longest):
            if it.ahead is not None and all(it.ahead.can_take(sequence) for sequence in sequences):
                return it.ahead.decode(sequences)
            if self._settle(it):
                assert it.ahead is not None
                return it.ahead.finish(sequences)
            return self._decoded(it, sequences, num_rows, longest)

    def _decoded(self, it: Opened, sequences: list[Sequence], num_rows: int, longest: int) -> list[list[int]]:
        rows: list[Sequence | None] = [None] * num_rows
        for sequence in sequences:
            rows[sequence.slot] = sequence
        ids, positions, columns = it.inputs.send(self._step_inputs(rows)).view(3, -1, 1)
        logits = it.slots.logits(0, ids, positions, columns, it.slots.key_len(longest))[:, -1]
        new_ids = self._sampled(it, logits, rows)
        return [[new_ids[sequence.slot]] for sequence in sequences]

    def share(self, num_busy: int) -> None:
        if self._cores is not None:
            self._cores.most = self._all_cores if num_busy <= 1 else self._num_cores

    def move(self, source: int, target: int, length: int) -> None:
        with self._computing() as it:
            it.slots.cache.move(source, target, length + self._settle(it))

    def swap(self, one: int, other: int, length: int) -> None:
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

    def _settle(self, it: Opened) -> bool:
        """Before a slot changes hands. True: slots hold one column more than Python has counted."""
        return it.ahead is not None and it.ahead.settle()

    def _step_inputs(self, rows: list[Sequence | None]) -> list[int]:
        """Token ids, then positions, then columns; a padding row writes id 0 into the scratch column."""
        ids = [0 if s is None else s.token_ids[s.num_cached] for s in rows]
        positions = [0 if s is None else s.num_cached for s in rows]
        columns = [self.max_len if s is None else s.num_cached for s in rows]
        return ids + positions + columns

    def _sampled(self, it: Opened, logits: Tensor, rows: list[Sequence | None]) -> list[int]:
        sampled = it.sampler.sample(logits, rows)
        it.logprobs.start(logits, sampled, rows)
        ids: list[int] = it.ids.fetch(sampled)
        it.logprobs.finish(ids)
        for sequence, token_id in zip(rows, ids, strict=True):
            if sequence is not None and token_id == NOT_A_TOKEN:
                it.slots.cache.clear(sequence.slot, 0)
        return ids

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


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a reply: the generation config's (one or several) and the tokenizer's."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = list(named) if isinstance(named, (list, tuple)) else [named]
    ids.append(getattr(tokenizer, "eos_token_id", None))
    return frozenset(i for i in ids if i is not None)
