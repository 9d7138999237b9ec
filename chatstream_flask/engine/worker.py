"""One generation thread: takes requests, computes their tokens step by step, ends them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .detokenizer import Detokenizer
from .outcome import FinishReason
from .prefill_budget import PrefillBudget
from .prefix_cache import SlotCopy
from .request import GenerationRequest
from .request_queue import RequestQueue
from .runner import Runner
from .scheduler import Scheduler
from .sequence import Chunk, Sequence
from .worker_thread import WorkerThread

logger = logging.getLogger("chatstream_flask")

FAILED = "generation failed"  # all that a client is told; the log has the rest

Complete = Callable[[GenerationRequest, FinishReason, str | None], None]


class Retired(Exception):
    """This thread was given up while it hung: what it works on has ended without it."""


class Worker(WorkerThread):
    """Owns its runner and scheduler: only its thread touches them, so nothing of them is locked."""

    def __init__(
        self,
        index: int,
        queue: RequestQueue,
        runner: Runner,
        scheduler: Scheduler,
        complete: Complete,
        *,
        on_end: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(f"chatstream-generation-{index}", on_end, clock)
        self.index = index
        self.queue = queue
        self.runner = runner
        self.scheduler = scheduler
        self._complete = complete
        self._pace = PrefillBudget(scheduler.prefill_chunk_len)

    def __repr__(self) -> str:
        return f"<Worker {self.index} {self.scheduler!r}>"

    # -- the thread ------------------------------------------------------------------------------

    def _open(self) -> None:
        self.runner.open()
        self.queue.ready(self.index, self.scheduler.num_slots)

    def _generate(self) -> None:
        try:
            while self.admit(wait=True):
                self._step_safely()
        except Retired:
            logger.warning("%r moves again; it was replaced and ends", self)

    def _close(self) -> None:
        self.runner.close()

    def _step_safely(self) -> None:
        try:
            self.step()
        except Retired:
            raise
        except Exception:
            self._fail_all()

    def _fail_all(self) -> None:
        """After a fault that may have spoilt any slot."""
        logger.exception("a step of %r failed; its %d replies end", self, len(self.scheduler.running))
        for sequence in self.scheduler.remove_all():
            self._end(sequence.request, FinishReason.ERROR, FAILED)

    # -- one step ----------------------------------------------------------------------------------

    def admit(self, *, wait: bool = False) -> bool:
        """Takes from the queue what has a slot and can be begun in the next step; waits while it has nothing
        to do. False: it is all over.
        """
        while self.scheduler.num_free and self.scheduler.num_to_prefill < self.scheduler.prefill_chunk_len:
            request = self._take(wait=wait and not self.scheduler.running)
            if request is None:
                break
            self._begin(request)
        if self.queue.is_retired(self.index):
            raise Retired
        return bool(self.scheduler.running) or not self.queue.is_over

    def _take(self, *, wait: bool) -> GenerationRequest | None:
        self.is_idle = wait
        request = self.queue.take(self.index, wait=wait)
        if wait:
            self.last_step_at = self._clock()  # before it counts as busy
            self.is_idle = False
        return request

    def step(self) -> None:
        """Prompts, as much of them as the running replies can wait for, then a token for each of these."""
        began = self.last_step_at = self._clock()
        self._end_unwanted()
        self.runner.share_cores(self.queue.num_busy)
        is_decoding = bool(self.scheduler.decoding())
        num_prefilled = self._prefill_some(self._pace.budget(is_decoding=is_decoding))
        if sequences := self.scheduler.decoding():
            self._decode(sequences)
        self.last_step_at = self._clock()
        self._pace.took(self.last_step_at - began, num_prefilled, is_decoding=is_decoding)
        self.stats.step_sec.add(self.last_step_at - began)

    def _prefill_some(self, budget: int) -> int:
        """One forward at the most, of one prompt or several; how many tokens it was."""
        if chunks := self.scheduler.next_chunks(budget):
            self._prefill(chunks)
            self.last_step_at = self._clock()
        return sum(chunk.num_tokens for chunk in chunks)

    def _begin(self, request: GenerationRequest) -> None:
        if reason := request.stop_reason:
            self._end(request, reason)
            return
        request.start()
        self.stats.queue_sec.add(self._clock() - request.created_at)
        try:
            detokenizer = Detokenizer(self.runner.text_decoder(request), request.params.stop)
            grammar = request.params.grammar
            matcher = None if grammar is None else self.runner.matcher(grammar)
        except Exception:
            logger.exception("the text decoder or the grammar of %r failed", request)
            self._end(request, FinishReason.ERROR, FAILED)
            return
        sequence, moves = self.scheduler.add(request, detokenizer)
        sequence.matcher = matcher
        request.num_reused = sequence.num_cached
        self.stats.num_reused += sequence.num_cached
        try:
            for move in moves:
                self._move(move)
        except Exception:
            self._fail_all()

    def _move(self, move: SlotCopy) -> None:
        (self.runner.swap_slots if move.is_swap else self.runner.copy_slot)(
            move.source, move.target, move.length
        )

    def _end_unwanted(self) -> None:
        for request in self.queue.pop_overdue():
            self._complete(request, request.stop_reason or FinishReason.TIMEOUT, None)
        for sequence in list(self.scheduler.running):
            if reason := sequence.request.stop_reason:
                self._finish(sequence, reason)

    def _prefill(self, chunks: list[Chunk]) -> None:
        """A fault ends only the reply in whose prompt it is."""
        decoding = self.scheduler.decoding()
        is_awaited = any(chunk.is_last for chunk in chunks)
        try:
            wait_for_ids = self.runner.prefill(chunks)
        except Exception:
            self._prefill_failed(chunks)
            return
        for sequence, num_tokens in chunks:  # all first, as in `_accept_batch`
            sequence.num_cached += num_tokens
        if is_awaited:
            self._accept_batch(decoding, self.runner.catch_up(decoding))
        try:
            new_ids = wait_for_ids()
        except Exception:
            for sequence, num_tokens in chunks:
                sequence.num_cached -= num_tokens
            self._prefill_failed(chunks)
            return
        self.stats.num_prefilled += sum(chunk.num_tokens for chunk in chunks)
        for (sequence, _), ids in zip(chunks, new_ids, strict=True):
            self._accept(sequence, ids)

    def _prefill_failed(self, chunks: list[Chunk]) -> None:
        """Of several, it is not known which."""
        if len(chunks) > 1:
            for chunk in chunks:
                self._prefill([chunk])
        else:
            logger.exception("prefill of %r failed", chunks[0].sequence)
            self._finish(chunks[0].sequence, FinishReason.ERROR, FAILED)

    def _decode(self, sequences: list[Sequence]) -> None:
        self._accept_batch(sequences, self.runner.decode(sequences))

    def _accept_batch(self, sequences: list[Sequence], new_ids: list[list[int]]) -> None:
        rows = list(zip(sequences, new_ids, strict=True))
        for sequence, ids in rows:  # all first: a reply that ends moves another one, whole
            sequence.num_cached += len(ids)
            self.stats.speculated(sequence, len(ids))
        for sequence, ids in rows:
            self._accept(sequence, ids)

    def _accept(self, sequence: Sequence, ids: list[int]) -> None:
        """New ids become text; a fault in it ends this reply only."""
        if ids:
            self.stats.told(sequence, self._clock())
        try:
            reason = None
            for token_id in ids:
                if reason := self._accept_one(sequence, token_id):
                    break
        except Exception:
            logger.exception("the text of %r failed", sequence)
            self._finish(sequence, FinishReason.ERROR, FAILED)
            return
        if reason is not None:
            self._finish(sequence, reason)

    def _accept_one(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id < 0:
            raise FloatingPointError("the model's scores are not numbers, or its grammar allows no token")
        request = sequence.request
        sequence.token_ids.append(token_id)
        request.count_token()
        self.stats.num_generated += 1
        if token_id in self.runner.eos_ids or token_id in request.stop_ids:
            return FinishReason.STOP
        self._emit(sequence, self._decoded(sequence, token_id))
        if sequence.detokenizer.is_stopped:
            return FinishReason.STOP
        if sequence.matcher is not None and sequence.matcher.accept(token_id):
            return FinishReason.STOP
        if request.num_generated >= request.params.max_new_tokens:
            return FinishReason.LENGTH
        return None

    def _decoded(self, sequence: Sequence, token_id: int) -> str:
        num_before = sequence.detokenizer.num_decoded
        text = sequence.detokenizer.push(token_id)
        if sequence.params.num_logprobs is not None:
            sequence.pending_logprobs.push(sequence.logprobs[sequence.request.num_generated - 1], num_before)
        return text

    def _emit(self, sequence: Sequence, text: str, *, is_last: bool = False) -> None:
        text_filter = sequence.request.text_filter
        if text and text_filter is not None:
            text = text_filter.push(text)
        if is_last and text_filter is not None:
            text += text_filter.finish()
        logprobs = sequence.pending_logprobs.pop(is_last=is_last)
        if text or logprobs:
            sequence.request.add_text(text, logprobs)

    def _finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> None:
        """Slot first, then the rest; the hole is filled last, so that a fault there loses no outcome."""
        move = self.scheduler.remove(sequence, keeps=reason is not FinishReason.ERROR)
        try:
            if reason is not FinishReason.ERROR:
                self._emit(sequence, sequence.detokenizer.finish(), is_last=True)
        except Exception:
            logger.exception("the last text of %r failed", sequence)
            reason, error = FinishReason.ERROR, FAILED
        self._end(sequence.request, reason, error)
        if move is not None:
            self._move(move)

    def _end(self, request: GenerationRequest, reason: FinishReason, error: str | None = None) -> None:
        if not self.queue.done(self.index, request):
            raise Retired
        self._complete(request, reason, error)
