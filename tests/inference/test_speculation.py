"""Replies with speculative decoding equal those without it, whatever is proposed or rejected."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import Bench
from slot_loop import prefill, serve
from tiny_models import (
    WAYS,
    WINDOW,
    IdsAsText,
    Job,
    TinyTokenizer,
    make_jobs,
    make_prompt,
    make_sequence,
    tiny_model,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.draft_length_tuner import DraftLengthTuner, Expected
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.speculation import accepted
from chatstream_flask.model_source import make_source

VOCAB_SIZE = 12  # so few that n-grams recur, mostly with other tokens after them
MAX_LEN = 250
KINDS: list[tuple[str, dict[str, Any]]] = [
    *(("llama", how) for how in WAYS.values()),
    *(("gemma3_text", how) for how in WAYS.values()),
    ("mistral", {"sliding_window": WINDOW}),
    ("gpt2", {}),
    ("gpt_oss", {}),
    ("deepseek_v3", {}),
]


class AllDrafts(DraftLengthTuner):
    """Uses all proposed drafts, even if they do not pay off."""

    def begin(self, num_rows: int, key_len: int, num_proposed: int, expected: Expected) -> int:
        super().begin(num_rows, key_len, num_proposed, expected)
        return num_proposed


class SpyRunner(IdsAsText):
    """Records how many drafts were proposed and accepted in each step."""

    def __init__(
        self,
        model: Any,
        tuner: DraftLengthTuner | None = None,
        *,
        num_slots: int = 5,
        max_len: int = MAX_LEN,
        async_decode: bool | None = None,
        **how: bool,
    ) -> None:
        prepared = PreparedModel(model, max_len, **how)
        super().__init__(
            prepared, TinyTokenizer(), num_slots=num_slots, async_decode=async_decode, draft_tuner=tuner
        )
        self.steps: list[list[tuple[int, int]]] = []  # for each row: drafts, new ids
        self.num_dropped = 0  # new ids after the end of a reply
        self.open()

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        new_ids = super().decode(sequences)
        self.steps.append([(len(s.drafts), len(ids)) for s, ids in zip(sequences, new_ids, strict=True)])
        for sequence, ids in zip(sequences, new_ids, strict=True):
            assert sequence.num_cached + len(ids) <= self.max_len
            assert sequence.request.num_generated + len(ids) <= sequence.params.max_new_tokens
            ends = [i for i in range(len(ids)) if ids[i] in sequence.request.stop_ids]
            self.num_dropped += len(ids) - 1 - ends[0] if ends else 0
        return new_ids

    def matcher(self, grammar: str) -> Any:
        return EvenOnly()

    @property
    def num_drafted(self) -> int:
        return sum(num for step in self.steps for num, _ in step)

    @property
    def num_accepted(self) -> int:
        return sum(num_new - 1 for step in self.steps for num, num_new in step if num)


class EvenOnly:
    """A grammar that allows every second token."""

    num_bytes = 2

    def accept(self, token_id: int) -> bool:
        assert token_id % 2 == 0
        return False

    def write_mask(self, address: int, num_bytes: int) -> bool:
        ctypes.memset(address, 0b01010101, num_bytes)
        return True


def small_model(kind: str = "llama", **changes: Any) -> Any:
    return tiny_model(kind, vocab_size=VOCAB_SIZE, **changes)


def small_prompt(length: int, seed: int = 0) -> list[int]:
    return [i % VOCAB_SIZE for i in make_prompt(length, seed)]


def small_jobs() -> list[Job]:
    return [replace(job, prompt_ids=[i % VOCAB_SIZE for i in job.prompt_ids]) for job in make_jobs()]


def ask(number: int, **kwargs: Any) -> GenerationRequest:
    params = SamplingParams(**({"temperature": 0, "max_new_tokens": 30 + number} | kwargs))
    return GenerationRequest(small_prompt(5 + 3 * number, number), params)


def replies(
    runner: SpyRunner, requests: list[GenerationRequest], num_slots: int
) -> list[tuple[str, int, FinishReason]]:
    bench = Bench(slots=[num_slots], num_waiting=99, chunk_len=4, make_runner=lambda: runner)
    bench.submit(*requests)
    bench.finish_all()
    stats = bench.workers[0].stats
    assert (stats.num_drafted, stats.num_accepted) == (runner.num_drafted, runner.num_accepted)
    return [reply(request) for request in requests]


def reply(request: GenerationRequest) -> tuple[str, int, FinishReason]:
    assert request.outcome is not None
    return request.text, request.num_generated, request.outcome.finish_reason


@pytest.mark.parametrize(("kind", "how"), KINDS)
@pytest.mark.parametrize("num_drafts", [1, 5])
def test_replies_of_sequences_that_join_and_leave(kind: str, how: dict[str, Any], num_drafts: int) -> None:
    changes = {name: value for name, value in how.items() if name == "sliding_window"}
    way = {name: value for name, value in how.items() if name not in changes}
    model, jobs = small_model(kind, **changes), small_jobs()
    expected = serve(SpyRunner(model, **way), jobs, num_slots=5, chunk_len=6)
    runner = SpyRunner(model, AllDrafts(num_drafts), **way)
    assert serve(runner, jobs, num_slots=5, chunk_len=6) == expected
    assert 0 < runner.num_accepted < runner.num_drafted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_replies_on_a_cuda_device(kind: str) -> None:
    model, jobs = small_model(kind).to("cuda"), small_jobs()
    expected = serve(SpyRunner(model), jobs, num_slots=5, chunk_len=6)
    runner = SpyRunner(model, AllDrafts(5))
    assert serve(runner, jobs, num_slots=5, chunk_len=6) == expected
    assert 0 < runner.num_accepted < runner.num_drafted


MIXED: list[dict[str, Any]] = [
    {},
    {"temperature": 1, "seed": 1, "top_k": 5},
    {"grammar": "even"},
    {"num_logprobs": 2},
    {"temperature": 0.7, "seed": 2, "top_k": None, "top_p": 0.9, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.2},
    {"frequency_penalty": 1.0},
    {"logit_bias": ((3, 2.0),)},
    {"temperature": 2, "seed": 3, "grammar": "even", "num_logprobs": 1},
    {},
]


@pytest.mark.parametrize("async_decode", [False, True])
def test_rows_without_drafts_are_not_affected(async_decode: bool) -> None:
    """Serve each request alone without drafts, then together with requests that have drafts."""
    model = small_model()
    alone = [replies(SpyRunner(model, num_slots=1), [ask(i, **it)], 1)[0] for i, it in enumerate(MIXED)]
    for num_slots in (10, 3):
        runner = SpyRunner(model, AllDrafts(4), num_slots=num_slots, async_decode=async_decode)
        requests = [ask(i, **it) for i, it in enumerate(MIXED)]
        assert replies(runner, requests, num_slots) == alone
        assert [len(r.token_logprobs(0)) for r in requests if r.params.num_logprobs] == [33, 38]
        assert any({0, 4} <= {num for num, _ in step} for step in runner.steps)
        assert runner.num_accepted > 0


def test_only_greedy_rows_with_plain_logits_get_drafts() -> None:
    for number, settings in enumerate(MIXED[1:-1]):
        runner = SpyRunner(small_model(), AllDrafts(4), num_slots=1)
        replies(runner, [ask(number, **settings)], 1)
        assert runner.num_drafted == 0


@pytest.mark.parametrize("async_decode", [False, True])
def test_a_reply_that_repeats_takes_fewer_steps(async_decode: bool) -> None:
    """Measure with a clock for which all steps take the same time."""
    model, job = small_model("gpt_neox"), Job(prompt_ids=small_prompt(11), num_new=200)
    expected = serve(SpyRunner(model, num_slots=1), [job], num_slots=1, chunk_len=64)
    runner = SpyRunner(
        model, DraftLengthTuner(8, itertools.count().__next__), num_slots=1, async_decode=async_decode
    )
    assert serve(runner, [job], num_slots=1, chunk_len=64) == expected
    assert len(runner.steps) < 0.3 * job.num_new


@pytest.mark.parametrize("async_decode", [False, True])
def test_drafts_never_exceed_the_slot(async_decode: bool) -> None:
    """Fill a slot to its last position."""
    model, num_drafted = small_model(), 0
    for num_prompt in range(8, 14):
        job = Job(prompt_ids=small_prompt(num_prompt), num_new=33 - num_prompt)
        expected = serve(SpyRunner(model, num_slots=2, max_len=32), [job], num_slots=2, chunk_len=4)
        runner = SpyRunner(model, AllDrafts(6), num_slots=2, max_len=32, async_decode=async_decode)
        assert serve(runner, [job], num_slots=2, chunk_len=4) == expected
        num_drafted += runner.num_drafted
    assert num_drafted > 0


@pytest.mark.parametrize("async_decode", [False, True])
@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 60])
def test_a_reply_has_no_token_too_many(max_new_tokens: int, async_decode: bool) -> None:
    model = small_model()
    expected = replies(SpyRunner(model), [ask(i, max_new_tokens=max_new_tokens) for i in range(6)], 3)
    runner = SpyRunner(model, AllDrafts(7), async_decode=async_decode)
    assert replies(runner, [ask(i, max_new_tokens=max_new_tokens) for i in range(6)], 3) == expected
    assert {(num, reason) for _, num, reason in expected} == {(max_new_tokens, FinishReason.LENGTH)}


@pytest.mark.parametrize("async_decode", [False, True])
def test_a_conversation_goes_on_after_drafts_that_were_dropped(async_decode: bool) -> None:
    """Replies end at any token, and the next turn reuses what their slot holds."""
    model = small_model()
    plain = SpyRunner(model, num_slots=1)
    runner = SpyRunner(model, AllDrafts(6), num_slots=3, async_decode=async_decode)
    fresh = Bench(slots=[1], make_runner=lambda: plain)
    bench = Bench(slots=[2], num_waiting=99, num_kept_slots=3, make_runner=lambda: runner)
    for stop_id in range(VOCAB_SIZE):
        said = small_prompt(20, stop_id)
        for turn in range(3):
            same = [
                GenerationRequest(
                    list(said),
                    SamplingParams(temperature=0, max_new_tokens=60),
                    stop_ids=frozenset({stop_id}),
                    cache_owner=owner,
                )
                for owner in (None, f"{stop_id}", "other")
            ]
            fresh.submit(same[0])
            bench.submit(*same[1:])
            fresh.finish_all()
            bench.finish_all()
            assert reply(same[1]) == reply(same[2]) == reply(same[0])
            assert turn == 0 or same[1].num_reused >= len(said) - 5
            said += [*map(ord, same[0].text), stop_id, turn, 5, 7]
    assert runner.num_dropped > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_draft_with_nan_logits_fails_its_row_alone(way: str) -> None:
    model, job = small_model(), Job(prompt_ids=[3, 5, 9, 1], num_new=8)
    (expected,) = serve(SpyRunner(model), [job], num_slots=1, chunk_len=9)
    broken_id, *others = set(range(VOCAB_SIZE)) - {*job.prompt_ids, *expected}
    # Opened before the token is broken, because the logits check uses it too.
    runner = SpyRunner(model, AllDrafts(3), **WAYS[way])
    model.get_input_embeddings().weight.data[broken_id] = torch.nan
    bad, good = make_sequence([*job.prompt_ids, *others], slot=0), make_sequence(job.prompt_ids, slot=1)
    for sequence in (bad, good):
        sequence.token_ids += prefill(runner, sequence, sequence.num_prompt)
        sequence.num_cached = sequence.num_prompt
    bad.token_ids[:3] = [bad.token_ids[-2], bad.token_ids[-1], broken_id]  # so that prompt lookup proposes it
    while len(good.token_ids) - good.num_prompt < job.num_new:
        new_ids = runner.decode([bad, good])
        assert bad.drafts[0] == broken_id and new_ids[0] == [-1]
        good.token_ids += new_ids[1]
        good.num_cached += len(new_ids[1])
    assert good.token_ids[good.num_prompt :][: job.num_new] == expected
    assert serve(runner, [job], num_slots=1, chunk_len=9) == [expected]


def test_accepted_drafts() -> None:
    assert accepted([], [7, 0, 0]) == [7]
    assert accepted([7, 8], [7, 8, 9]) == [7, 8, 9]
    assert accepted([7, 8], [7, 9, 8]) == [7, 9]
    assert accepted([7, 8], [9, 8, 8]) == [9]


@pytest.mark.parametrize("num", [None, 0, 8])
def test_speculation_is_optional(num: int | None) -> None:
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCAB_SIZE)}, unk_token="0"))
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=words)
    source = make_source(small_model(), tokenizer, None, MAX_LEN, None, False, None, num)
    runner = source.make_runner(1, 1, 0)
    runner.open()
    bench = Bench(slots=[1], make_runner=lambda: runner)
    bench.submit(ask(6))
    bench.finish_all()
    assert (bench.workers[0].stats.num_drafted > 0) is bool(num)


@pytest.mark.parametrize("num", [-1, 65, 1.5, True])
def test_an_invalid_number_of_drafts_is_refused(num: Any) -> None:
    with pytest.raises(ConfigError, match="prompt_lookup_num_tokens must be"):
        make_source(None, None, None, 64, None, True, None, num)
