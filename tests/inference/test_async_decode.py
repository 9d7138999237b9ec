"""Asynchronous decoding, as on CUDA, gives the same replies as one step at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from fakes import Bench
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from slot_loop import prefill
from tiny_models import IdsAsText, TinyTokenizer, make_prompt, make_sequence, tiny_model

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.failure_streak import FailureStreak
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reasoning import Reasoning
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.runner import NewIds
from chatstream_flask.engine.sequence import Chunk
from chatstream_flask.inference.decode_step import DecodeStep
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.slot_model import SlotModel
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags

MAX_LEN = 200
NUM_NEW = 12
BROKEN_ID = 145  # its embedding is NaN, so the step after it fails

KINDS = [
    SamplingParams(temperature=0, max_new_tokens=NUM_NEW),
    SamplingParams(temperature=0, max_new_tokens=1),
    SamplingParams(seed=1, top_k=5, max_new_tokens=NUM_NEW),
    SamplingParams(seed=2, top_k=None, top_p=0.8, max_new_tokens=NUM_NEW),
    SamplingParams(seed=3, top_k=None, temperature=0.7, min_p=0.01, max_new_tokens=NUM_NEW),
    SamplingParams(temperature=0, logit_bias=((BROKEN_ID, 100.0),), max_new_tokens=NUM_NEW),
    # Not decoded asynchronously, because Python works between two of their tokens:
    SamplingParams(seed=4, top_k=20, repetition_penalty=1.3, max_new_tokens=NUM_NEW),
    SamplingParams(temperature=0, num_logprobs=2, max_new_tokens=NUM_NEW),
    # Reasons first, and is made to answer, so that it is not decoded asynchronously for some steps:
    SamplingParams(temperature=0, max_new_tokens=NUM_NEW),
    SamplingParams(seed=5, top_k=5, max_new_tokens=NUM_NEW),
]
REASONING_KINDS = (8, 9)
TAGS = ReasoningTags("<", ">")
CLOSING_IDS = [70, ord(">"), 71]


@cache
def prepared() -> PreparedModel:
    model: Any = tiny_model("llama")
    it = PreparedModel(model, MAX_LEN, use_native=False, prepack=False)
    it.prepare(1)
    model.get_input_embeddings().weight.data[BROKEN_ID] = torch.nan
    return it


class AnyNumberOfFailures(FailureStreak):
    """A worker with it goes on after any number of requests that fail; no pool here would replace it."""

    @property
    def is_too_long(self) -> bool:
        return False


def make_bench(num_slots: int, *, num_more: int = 1, async_decode: bool = True) -> Bench:
    """:param num_more: slots that only cache prefixes"""

    def make_runner() -> ModelRunner:
        runner = IdsAsText(
            prepared(), TinyTokenizer(), num_slots=num_slots + num_more, async_decode=async_decode
        )
        runner.open()
        return runner

    bench = Bench(
        slots=[num_slots],
        num_waiting=99,
        chunk_len=8,
        num_kept_slots=num_slots + num_more,
        make_runner=make_runner,
    )
    bench.workers[0].failures = AnyNumberOfFailures()
    return bench


def make_request(number: int, length: int) -> GenerationRequest:
    prompt_ids = [i for i in make_prompt(30, number % 3)[:length] if i != BROKEN_ID]
    return GenerationRequest(
        prompt_ids,
        KINDS[number % len(KINDS)],
        reasoning=make_reasoning(number % 7) if number % len(KINDS) in REASONING_KINDS else None,
        cache_owner=f"owner {number % 3}",
    )


def make_reasoning(budget: int) -> Reasoning:
    return Reasoning(splitter=TAGS.make_splitter("<"), closing_ids=CLOSING_IDS, max_tokens=budget)


@cache
def alone(number: int, length: int) -> tuple[FinishReason, str]:
    """Return the reply of a request served alone, without asynchronous decoding."""
    bench, request = make_bench(1, async_decode=False), make_request(number, length)
    bench.submit(request)
    bench.finish_all()
    return ended(request)


def ended(request: GenerationRequest) -> tuple[FinishReason, str]:
    assert request.outcome is not None
    return request.outcome.finish_reason, request.reasoning_text + request.text


@pytest.mark.parametrize("async_decode", [False, True])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_the_answer_after_a_budget_is_that_to_a_prompt_which_ends_with_the_reasoning(
    budget: int, async_decode: bool
) -> None:
    prompt_ids = make_prompt(10)
    reasons = GenerationRequest(prompt_ids, KINDS[0], reasoning=make_reasoning(budget))
    bench = make_bench(1, async_decode=async_decode)
    bench.submit(reasons)
    bench.finish_all()
    reasoning_ids = [*map(ord, reasons.reasoning_text), *CLOSING_IDS[1:2]]
    assert len(reasoning_ids) == budget + 2
    answers = GenerationRequest([*prompt_ids, *reasoning_ids, CLOSING_IDS[2]], KINDS[0])
    bench.submit(answers)
    bench.finish_all()
    assert reasons.text == chr(CLOSING_IDS[2]) + answers.text
    assert len(answers.text) == NUM_NEW


@example(num_slots=3, events=[(0, 1, 6, False), (0, 1, 0, False), (8, 14, 0, False)])
@example(num_slots=2, events=[(0, 1, 2, False), (0, 1, 0, False), (6, 11, 0, False)])
@example(num_slots=2, events=[(0, 1, 2, False), (0, 1, 0, False), (0, 13, 0, False)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    num_slots=st.integers(1, 6),
    events=st.lists(
        st.tuples(st.integers(0, 23), st.integers(1, 30), st.integers(0, 6), st.booleans()),
        min_size=2,
        max_size=14,
    ),
)
def test_replies_equal_those_of_synchronous_decoding(
    num_slots: int, events: list[tuple[int, int, int, bool]]
) -> None:
    """Replies join and end at any time, some are cancelled, some fail, and free slots cache prefixes."""
    bench = make_bench(num_slots)
    requests = []
    for number, length, num_steps, is_cancelling in events:
        requests.append(make_request(number, length))
        bench.submit(requests[-1])
        for _ in range(num_steps):
            if bench.running or bench.queue.num_waiting:
                bench.step()
        if is_cancelling:
            bench.cancel(requests[-1])
    bench.finish_all()
    for request, (number, length, _, is_cancelling) in zip(requests, events, strict=True):
        expected_reason, expected_text = alone(number, length)
        reason, text = ended(request)
        if is_cancelling and reason is FinishReason.CANCELLED:
            assert expected_text.startswith(text)
        else:
            assert (reason, text) == (expected_reason, expected_text)


def test_the_kinds_of_requests_cover_all_outcomes() -> None:
    ends = [alone(number, 20) for number in range(len(KINDS))]
    assert {reason for reason, _ in ends} == {FinishReason.LENGTH, FinishReason.ERROR}
    assert ends[5] == (FinishReason.ERROR, chr(BROKEN_ID))
    assert len({text for _, text in ends}) >= 5
    greedy = [alone(0, length)[0] for length in range(1, 31)]
    assert FinishReason.ERROR in greedy and FinishReason.LENGTH in greedy


def test_a_failed_step_of_a_cancelled_reply_does_not_affect_the_slots_next_owner() -> None:
    failing = next(length for length in range(1, 31) if alone(0, length)[0] is FinishReason.ERROR)
    leaving, next_one = make_request(0, failing), make_request(2, 3)
    bench = make_bench(1, num_more=0)
    bench.submit(leaving)
    while not leaving.text.endswith(chr(BROKEN_ID)):
        bench.step()
    bench.cancel(leaving)  # the failing step is pending
    bench.submit(next_one)
    bench.finish_all()
    assert ended(leaving)[0] is FinishReason.CANCELLED
    assert ended(next_one) == alone(2, 3) == (FinishReason.LENGTH, next_one.text)


def test_ids_come_one_call_late_and_no_step_follows_the_last_token() -> None:
    runner = IdsAsText(prepared(), TinyTokenizer(), num_slots=2, async_decode=True)
    runner.open()
    sequence = make_sequence(make_prompt(9), SamplingParams(temperature=0, max_new_tokens=3))
    sequence.token_ids += prefill(runner, sequence, 9)
    sequence.num_cached = 9
    sequence.request.count_token(7)
    for num_new in (0, 1, 1):
        (ids,) = runner.decode([sequence])
        assert len(ids) == num_new
        sequence.token_ids += ids
        sequence.num_cached += num_new
        for _ in ids:
            sequence.request.count_token(7)
    assert runner.decode([sequence]) == [[]]  # its last token needs no step


class RecordingRunner(IdsAsText):
    """Records the length of a running reply whenever the first token of a prompt is waited for."""

    watched: GenerationRequest | None = None
    seen: list[int]

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        wait_for_ids = super().prefill(chunks)

        def watched_ids() -> list[list[int]]:
            if self.watched is not None:
                self.seen.append(self.watched.num_generated)
            return wait_for_ids()

        return watched_ids


def test_a_finished_token_does_not_wait_for_another_requests_prompt() -> None:
    runner = RecordingRunner(prepared(), TinyTokenizer(), num_slots=2, async_decode=True)
    runner.open()
    bench = Bench(slots=[2], num_waiting=9, chunk_len=8, make_runner=lambda: runner)
    running, arriving = make_request(0, 3), make_request(0, 20)
    bench.submit(running)
    for _ in range(4):
        bench.step()
    runner.watched, runner.seen = running, []
    num_before = running.num_generated
    bench.submit(arriving)
    while not arriving.num_generated:
        bench.step()
    assert runner.seen == [num_before, num_before + 1, num_before + 3]  # caught up in the last one
    bench.finish_all()
    assert [ended(running), ended(arriving)] == [alone(0, 3), alone(0, 20)]


def test_shapes_are_few_and_large_enough() -> None:
    it = prepared()
    slots = SlotModel(it.model, it.forward, it.shapes, num_slots=1, max_len=5000)
    step = DecodeStep(slots, num_slots=100, device=torch.device("cpu"), captures=False)
    key_lens = [step.key_len(needed) for needed in range(1, 5001)]
    assert all(
        needed <= key_len <= max(1.25 * needed, needed + 63) for needed, key_len in enumerate(key_lens, 1)
    )
    assert len(set(key_lens)) <= 24 and key_lens == sorted(key_lens)
    rows = [step.num_rows(needed) for needed in range(1, 101)]
    assert all(needed <= num <= 2 * needed for needed, num in enumerate(rows, 1))
    assert rows[-1] == 100 and len(set(rows)) <= 14


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen3", "gpt2"])
def test_replies_with_cuda_graphs_equal_those_without(kind: str) -> None:
    model = tiny_model(kind).to("cuda")
    texts = []
    for async_decode in (False, True, True):
        runner = IdsAsText(
            PreparedModel(model, MAX_LEN), TinyTokenizer(), num_slots=6, async_decode=async_decode
        )
        bench = Bench(slots=[6], num_waiting=99, chunk_len=8, make_runner=lambda runner=runner: runner)  # type: ignore[misc]
        runner.open()
        requests = [make_request(number, 20 + number) for number in (0, 2, 3, 4, 8, 10)]
        bench.submit(*requests)
        bench.finish_all()
        texts.append([request.text for request in requests])
        runner.close()
    assert texts[0] == texts[1] == texts[2]
