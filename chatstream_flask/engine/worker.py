"""A worker thread at work: it takes requests, runs the model step by step, and ends the replies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..config import EngineConfig
from ..errors import ChatStreamError
from .detokenizer import Detokenizer
from .failure_streak import FailureStreak
from .outcome import FinishReason
from .prefill_budget import PrefillBudget
from .prefix_cache import SlotCopy
from .reasoning import AnswerDecoder
from .reasoning_matcher import ReasoningMatcher
from .request import GenerationRequest
from .request_queue import RequestQueue
from .runner import Runner
from .runner_check import can_generate
from .scheduler import Scheduler
from .sequence import Chunk, Sequence
from .worker_stats import SHARED
from .worker_thread import WorkerThread

logger = logging.getLogger("chatstream_flask")

GATHER_SHARE = 0.1  # of the time that prompts will take, for which others of the same burst are waited for
FAILED = "generation failed"  # the only detail that clients get; the log has the rest

Complete = Callable[[GenerationRequest, FinishReason, str | ChatStreamError | None], None]


class Retired(Exception):
    """Raised in a thread that hung and runs again after it was replaced; its requests have ended already."""


class Worker(WorkerThread):
    """Runs the sequences of its scheduler on its runner; both are used by its thread only, without locks.

    One step is: prompt chunks within a budget, then one decode step of all sequences whose prompts are
    complete.
    """

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
        prefill_priority: float = EngineConfig.prefill_priority,
        follows_failing: bool = False,
        begins_with_test: bool = False,
    ) -> None:
        """Create a worker that is not started.

        :param index: number of the thread in the queue
        :param complete: called with each request of this thread that has ended
        :param on_end: called by the thread when it ends, for whatever reason
        :param prefill_priority: as in PrefillBudget
        :param follows_failing: whether it replaces a worker whose runner failed too often in a row
        :param begins_with_test: show by a test prompt that the runner works, and so that the fault of the
            worker before it was that of a request
        """
        super().__init__(f"chatstream-generation-{index}", on_end, clock)
        self.index = index
        self.queue = queue
        self.runner = runner
        self.scheduler = scheduler
        self.failures = FailureStreak(follows_failing=follows_failing)
        self._begins_with_test = begins_with_test
        self._complete = complete
        self._prefill_budget = PrefillBudget(scheduler.prefill_chunk_len, prefill_priority)

    def __repr__(self) -> str:
        return f"<Worker {self.index} {self.scheduler!r}>"

    # -- the thread ------------------------------------------------------------------------------

    def _open(self) -> None:
        self.runner.open()
        self.queue.set_ready(self.index)

    def _generate(self) -> None:
        if self._begins_with_test and can_generate(self.runner, self.scheduler):
            self.failures.record_success()
        try:
            while not self.is_failing and self.admit(wait=True):
                self._step_safely()
                self._judge_runner()
        except Retired:
            logger.warning("%r runs again; it was replaced and ends", self)

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
        """End all running replies, after a fault that may have corrupted any slot."""
        logger.exception("a step of %r failed; its %d replies end", self, len(self.scheduler.running))
        self.failures.record_failure()
        removed = self.scheduler.remove_all()
        self._judge_runner()  # before any client learns of the failure and tries again
        for sequence in removed:
            self.runner.forget(sequence)
            self._end(sequence.request, FinishReason.ERROR, FAILED)

    def _judge_runner(self) -> None:
        """After too many failures in a row, see with a test prompt whether the runner is at fault."""
        if self.is_failing or not self.failures.is_too_long or self.scheduler.running:
            return
        self.last_step_at = self._clock()
        if can_generate(self.runner, self.scheduler):
            logger.warning("%r computed a test prompt; the failures before it are those of requests", self)
            self.failures.record_success()
        else:
            self.is_failing = True

    # -- admission -----------------------------------------------------------------------------------

    def admit(self, *, wait: bool = False) -> bool:
        """Take requests that have a slot and whose prompt can begin in the next step.

        :param wait: block until there is something to do
        :returns: False if nothing runs and nothing will come
        :raises Retired: this thread was replaced
        """
        was_idle = wait and not self.scheduler.running
        while self._has_room:
            request = self._take(wait=wait and not self.scheduler.running)
            if request is None:
                break
            self._start(request)
        if was_idle and self.scheduler.running:
            self._gather()
        if self.queue.is_retired(self.index):
            raise Retired
        return bool(self.scheduler.running) or not self.queue.is_exhausted

    @property
    def _has_room(self) -> bool:
        """Whether another prompt can begin in the next step."""
        return (
            self.scheduler.num_free > 0
            and self.scheduler.num_to_prefill < self.scheduler.prefill_chunk_len
            and not self.failures.is_too_long  # a copy failed
        )

    def _gather(self) -> None:
        """Wait for requests that are just arriving, so that the prompts of a burst are computed together.

        Once one of them has its first token, its next tokens have to be weighed against the other prompts.
        """
        began = self._clock()
        while self._has_room:
            waited = self._clock() - began
            most = GATHER_SHARE * self._prefill_budget.prefill_sec(self.scheduler.num_to_prefill)
            if waited >= most or not self.queue.wait_for_arriving(most - waited):
                break
            request = self._take(wait=False)
            if request is None:  # it is for another thread
                break
            self._start(request)
        self.last_step_at = self._clock()

    def _take(self, *, wait: bool) -> GenerationRequest | None:
        self.is_idle = wait
        request = self.queue.take(self.index, wait=wait)
        if wait:
            self.last_step_at = self._clock()  # before `is_idle`: the watchdog must not see an old time
            self.is_idle = False
        return request

    def _start(self, request: GenerationRequest) -> None:
        """Give a request a slot."""
        if reason := request.stop_reason:
            self._end(request, reason)
            return
        request.start()
        self.stats.queue_sec.add(self._clock() - request.queued_at)
        try:
            decoder = self.runner.text_decoder(request)
            if request.reasoning is not None:
                decoder = AnswerDecoder(decoder, request.reasoning.splitter, request.add_reasoning)
            params = request.params
            detokenizer = Detokenizer(
                decoder,
                params.stop,
                min_tokens=params.min_new_tokens,
                shows_stop_string=params.include_stop_str_in_output,
            )
            grammar = params.grammar
            matcher = None if grammar is None else self.runner.matcher(grammar)
            if matcher is not None and request.reasoning is not None:
                matcher = ReasoningMatcher(matcher, request.reasoning)
        except Exception:
            logger.exception("the text decoder or the grammar of %r failed", request)
            self._end(request, FinishReason.ERROR, FAILED)
            return
        sequence, copies = self.scheduler.add(request, detokenizer)
        sequence.grammar_matcher = matcher
        eos_ids = frozenset[int]() if request.ignores_eos else self.runner.eos_ids
        sequence.ending_ids = eos_ids | request.stop_ids
        self._count_reused(sequence)
        try:
            for copy in copies:
                self._copy(copy)
        except Exception:
            self._fail_all()

    def _reuse_awaited(self) -> None:
        """Copy prefixes for which sequences have waited while another one computed them."""
        for sequence, copy in self.scheduler.reuse_awaited():
            self._copy(copy)
            self._count_reused(sequence)

    def _count_reused(self, sequence: Sequence) -> None:
        request, before, now = sequence.request, sequence.request.num_reused, sequence.num_cached
        num_shared = min(now, request.num_shared) - min(before, request.num_shared)
        request.num_reused = now
        self.stats.reused[SHARED] += num_shared
        self.stats.reused[request.owner_kind] += now - before - num_shared

    def _copy(self, copy: SlotCopy) -> None:
        copy_or_swap = self.runner.swap_slots if copy.is_swap else self.runner.copy_slot
        copy_or_swap(copy.source, copy.target, copy.length)

    # -- one step ------------------------------------------------------------------------------------

    def step(self) -> None:
        """Compute as many prompt tokens as running replies can wait for, then a token of each reply."""
        began = self.last_step_at = self._clock()
        self._end_overdue()
        self.runner.share_cores(self.queue.num_busy)
        self._reuse_awaited()
        num_decoding = len(self.scheduler.decoding())
        chunks = self.scheduler.next_chunks(self._prefill_budget.num_tokens(num_decoding))
        if chunks:
            self._prefill(chunks)
            self.last_step_at = self._clock()
        if sequences := self.scheduler.decoding():
            self._accept_batch(sequences, self.runner.decode(sequences))
        self.last_step_at = self._clock()
        step_sec = self.last_step_at - began
        num_prefilled = sum(chunk.num_tokens for chunk in chunks)
        self._prefill_budget.record_step(step_sec, num_prefilled, len(sequences))
        self.stats.step_sec.add(step_sec)

    def _end_overdue(self) -> None:
        """End the waiting and running requests that have a stop reason."""
        for request in self.queue.pop_overdue():
            self._complete(request, request.stop_reason or FinishReason.TIMEOUT, None)
        for sequence in list(self.scheduler.running):
            if reason := sequence.request.stop_reason:
                self._finish(sequence, reason)

    def _prefill(self, chunks: list[Chunk]) -> None:
        """Compute prompt chunks; a fault ends only the reply whose chunk causes it."""
        decoding = self.scheduler.decoding()
        completes_prompt = any(chunk.is_last for chunk in chunks)
        try:
            wait_for_ids = self.runner.prefill(chunks)
        except Exception:
            self._on_prefill_failed(chunks)
            return
        for sequence, num_tokens in chunks:  # before any is accepted, as in `_accept_batch`
            sequence.num_cached += num_tokens
        if completes_prompt:  # waiting for its first token takes a while: first emit tokens that are ready
            self._accept_batch(decoding, self.runner.catch_up(decoding))
        try:
            new_ids = wait_for_ids()
        except Exception:
            for sequence, num_tokens in chunks:
                sequence.num_cached -= num_tokens
            self._on_prefill_failed(chunks)
            return
        self.stats.num_prefilled += sum(chunk.num_tokens for chunk in chunks)
        for (sequence, _), ids in zip(chunks, new_ids, strict=True):
            self._accept(sequence, ids)

    def _on_prefill_failed(self, chunks: list[Chunk]) -> None:
        """Retry the chunks one by one to find the one that fails; end its reply."""
        if len(chunks) > 1:
            for chunk in chunks:
                self._prefill([chunk])
        else:
            logger.exception("prefill of %r failed", chunks[0].sequence)
            self.failures.record_failure()
            self._finish(chunks[0].sequence, FinishReason.ERROR, FAILED)

    # -- new tokens ----------------------------------------------------------------------------------

    def _accept_batch(self, sequences: list[Sequence], new_ids: list[list[int]]) -> None:
        rows = list(zip(sequences, new_ids, strict=True))
        # Count the cached tokens of all rows first: a reply that ends causes a copy of another one's slot,
        # which must include the tokens of this step.
        for sequence, ids in rows:
            sequence.num_cached += len(ids)
            self.stats.record_drafts(sequence, len(ids))
        for sequence, ids in rows:
            self._accept(sequence, ids)
        if any(token_id >= 0 for _, ids in rows for token_id in ids):
            self.failures.record_success()

    def _accept(self, sequence: Sequence, ids: list[int]) -> None:
        """Append new tokens to a sequence; a fault in its text ends this reply only."""
        if ids:
            self.stats.record_tokens(sequence, self._clock())
        num_before = sequence.request.num_generated
        reason = None
        try:
            reason = sequence.append_tokens(ids)
        except Exception:
            logger.exception("the text of %r failed", sequence)
            may_have_none = sequence.grammar_matcher is not None or sequence.params.is_restricted
            if min(ids) < 0 and not may_have_none:
                self.failures.record_failure()
            self._finish(sequence, FinishReason.ERROR, FAILED)
            return
        finally:
            self.stats.num_generated += sequence.request.num_generated - num_before
        if reason is not None:
            self._finish(sequence, reason)
        elif sequence.fault is not None:
            self._finish(sequence, FinishReason.ERROR, sequence.fault)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, error: str | ChatStreamError | None = None
    ) -> None:
        """Release the slot, report the outcome, and compact last: a failing copy cannot lose the outcome."""
        copy = self.scheduler.remove(sequence, is_reusable=reason is not FinishReason.ERROR)
        self.runner.forget(sequence)
        try:
            if reason is not FinishReason.ERROR or sequence.fault is not None:
                sequence.flush_text()
        except Exception:
            logger.exception("the last text of %r failed", sequence)
            reason, error = FinishReason.ERROR, FAILED
        self._end(sequence.request, reason, error)
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            self.failures.record_success()
        if copy is not None:
            self._copy(copy)

    def _end(
        self, request: GenerationRequest, reason: FinishReason, error: str | ChatStreamError | None = None
    ) -> None:
        """Report the outcome of a request of this thread.

        :raises Retired: the thread was replaced, and the request has ended already
        """
        if not self.queue.done(self.index, request):
            raise Retired
        self._complete(request, reason, error)
