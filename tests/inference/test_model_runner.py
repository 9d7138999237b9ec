"""Greedy replies of sequences served together equal those of `generate`, for each kind of model."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from slot_loop import prefill, serve, serve_in_two_threads
from tiny_models import WAYS, WINDOW, Job, TinyTokenizer, make_jobs, make_prompt, make_sequence, tiny_model

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.decoders.fuse import FUSIBLE
from chatstream_flask.inference.model_runner import ModelRunner, eos_ids
from chatstream_flask.inference.prepared_model import PreparedModel

MAX_LEN = 80  # more than KEY_LEN_STEP
NUM_SLOTS = 5

SERVED: list[tuple[str, dict[str, Any]]] = [
    ("codegen", {}),
    ("cohere", {}),
    ("deepseek_v3", {}),
    ("falcon", {}),
    ("gemma", {}),
    ("gemma2", {}),
    ("gemma3_text", {}),
    ("gemma4_text", {}),
    ("gpt2", {}),
    ("gpt_bigcode", {}),
    ("gpt_neox", {}),
    ("gpt_oss", {}),
    ("gptj", {}),
    ("granite", {}),
    ("llama", {}),
    ("llama", {"attn_implementation": "eager"}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": WINDOW}),
    ("mixtral", {}),
    ("olmo2", {}),
    ("opt", {}),
    ("phi3", {"sliding_window": WINDOW}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    ("qwen3", {}),
    ("qwen3_moe", {}),
    ("smollm3", {}),
    ("stablelm", {}),
    ("starcoder2", {"sliding_window": WINDOW}),
]


def test_the_page_of_models_lists_what_is_tested() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| yes \| (yes|no) \| [^|]+ \|$", page, re.MULTILINE))
    assert rows.keys() == {kind.removesuffix("_text") for kind, _ in SERVED}
    fusible = {kind.removesuffix("_text") for kind in FUSIBLE}
    assert {kind for kind, is_compiled in rows.items() if is_compiled == "yes"} == fusible


def open_runner(
    model: Any,
    num_slots: int = NUM_SLOTS,
    max_len: int = MAX_LEN,
    async_decode: bool | None = None,
    **how: bool,
) -> ModelRunner:
    prepared = PreparedModel(model, max_len, **how)
    runner = ModelRunner(prepared, TinyTokenizer(), num_slots=num_slots, async_decode=async_decode)
    runner.open()
    return runner


def generate_alone(model: Any, job: Job) -> list[int]:
    ids = torch.tensor([job.prompt_ids], device=model.device)
    mask = torch.ones_like(ids)
    output = model.generate(ids, attention_mask=mask, max_new_tokens=job.num_new, do_sample=False)
    reply: list[int] = output[0, len(job.prompt_ids) :].tolist()
    return reply


@cache
def generated(kind: str, changes: tuple[tuple[str, Any], ...] = ()) -> list[list[int]]:
    """Return what transformers generates for `make_jobs()` on CPU: what every way of serving must give."""
    model = tiny_model(kind, **dict(changes))
    return [generate_alone(model, job) for job in make_jobs()]


def prefilled(runner: ModelRunner, prompt_ids: list[int], slot: int) -> Sequence:
    sequence = make_sequence(prompt_ids, slot=slot)
    sequence.token_ids += prefill(runner, sequence, len(prompt_ids))
    sequence.num_cached = len(prompt_ids)
    return sequence


def ways(kind: str) -> list[str]:
    """Return the ways of computing a forward pass that differ for this kind of model."""
    return list(WAYS) if kind in FUSIBLE else ["prepacked", "async"]


@pytest.mark.parametrize(
    ("kind", "changes", "way"), [(kind, changes, way) for kind, changes in SERVED for way in ways(kind)]
)
def test_replies_equal_generate(kind: str, changes: dict[str, Any], way: str) -> None:
    model, jobs = tiny_model(kind, **changes), make_jobs()
    expected = generated(kind, tuple(changes.items()))
    assert max(len(set(reply)) for reply in expected) >= 10, "a reply that does not wander proves nothing"
    runner = open_runner(model, **WAYS[way])
    assert serve(runner, jobs, num_slots=NUM_SLOTS, chunk_len=6) == expected
    first_tokens = generate_alone(model, replace(jobs[-1], num_new=5))
    assert first_tokens == expected[-1][:5], "the model itself keeps working"


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize(("num_slots", "chunk_len"), [(1, 7), (2, 1), (3, 64), (8, 16)])
def test_replies_do_not_depend_on_slots_and_chunks(kind: str, num_slots: int, chunk_len: int) -> None:
    runner = open_runner(tiny_model(kind), num_slots)
    assert serve(runner, make_jobs(), num_slots=num_slots, chunk_len=chunk_len) == generated(kind)


def test_a_sequence_may_fill_its_slot_to_the_last_token() -> None:
    model = tiny_model("llama")
    job = Job(prompt_ids=make_prompt(10), num_new=23)  # its last token needs no cache position
    assert serve(open_runner(model, 2, 32), [job], num_slots=2, chunk_len=4) == [generate_alone(model, job)]


def test_a_seeded_reply_does_not_depend_on_its_neighbours() -> None:
    model = tiny_model("llama")
    kinds = [
        SamplingParams(seed=1, top_k=5),
        SamplingParams(seed=2, top_k=None, top_p=0.8),
        SamplingParams(seed=3, top_k=20, top_p=0.9, repetition_penalty=1.3),
        SamplingParams(seed=4, top_k=None, temperature=0.7),
        SamplingParams(temperature=0, repetition_penalty=1.2, repetition_penalty_method="subtractive"),
    ]
    jobs = [
        Job(prompt_ids=job.prompt_ids, num_new=job.num_new, arrives_at=job.arrives_at, params=params)
        for job, params in zip(make_jobs(5), kinds, strict=True)
    ]
    alone = [serve(open_runner(model, 1), [job], num_slots=1, chunk_len=8)[0] for job in jobs]
    assert serve(open_runner(model), jobs, num_slots=NUM_SLOTS, chunk_len=8) == alone


def test_two_threads_share_a_model() -> None:
    check_two_threads(tiny_model("gemma3_text"), generated("gemma3_text"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_two_streams_share_a_model(kind: str) -> None:
    model = tiny_model(kind).to("cuda")
    check_two_threads(model, [generate_alone(model, job) for job in make_jobs()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [*sorted(FUSIBLE), "gpt2"])
@pytest.mark.parametrize("async_decode", [False, True])
def test_replies_on_a_cuda_device_equal_generate(kind: str, async_decode: bool) -> None:
    model, jobs = tiny_model(kind).to("cuda"), make_jobs()
    expected = [generate_alone(model, job) for job in jobs]
    runner = open_runner(model, async_decode=async_decode)
    assert serve(runner, jobs, num_slots=NUM_SLOTS, chunk_len=6) == expected


def check_two_threads(model: Any, expected: list[list[int]]) -> None:
    replies = serve_in_two_threads(lambda: open_runner(model), make_jobs(), num_slots=NUM_SLOTS)
    assert replies == {0: expected, 1: expected}


def test_bfloat16_replies_start_like_generate() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    job = Job(prompt_ids=make_prompt(20), num_new=20)
    reply = serve(open_runner(model), [job], num_slots=2, chunk_len=8)[0]
    assert reply[:3] == generate_alone(model, job)[:3]


def test_a_row_of_nan_fails_alone_and_its_slot_can_be_used_again() -> None:
    model = tiny_model("llama")
    broken_id, job = 7, Job(prompt_ids=[3, 5, 9, 11], num_new=10)
    good_ids = generate_alone(model, job)
    assert broken_id not in good_ids + job.prompt_ids
    model.get_input_embeddings().weight.data[broken_id] = torch.nan
    runner = open_runner(model)  # its logits check uses other tokens
    bad, good = prefilled(runner, [3, 4, 5, 6, 8, 10], 0), prefilled(runner, job.prompt_ids, 1)
    bad.token_ids[-1] = broken_id
    for i in range(1, job.num_new):
        new_ids = runner.decode([bad, good])
        assert new_ids == [[-1], [good_ids[i]]]
        good.token_ids += new_ids[1]
        good.num_cached += 1
    assert prefilled(runner, job.prompt_ids, 0).token_ids[-1] == good_ids[0]
    assert prefill(runner, make_sequence([3, broken_id]), 2) == [-1]


def test_a_prefilling_slot_is_not_disturbed_by_decoding() -> None:
    model = tiny_model("llama")
    first, second = Job(prompt_ids=make_prompt(30), num_new=1), Job(prompt_ids=make_prompt(9), num_new=5)
    runner = open_runner(model)
    waiting = make_sequence(first.prompt_ids, slot=0)
    assert prefill(runner, waiting, 11) == []
    waiting.num_cached = 11
    other = prefilled(runner, second.prompt_ids, 2)  # rows 0 and 1 are padding
    for _ in range(4):
        other.token_ids += runner.decode([other])[0]
        other.num_cached += 1
    assert other.token_ids[9:] == generate_alone(model, second)
    assert prefill(runner, waiting, 19) == generate_alone(model, first)


def test_a_cache_that_does_not_fit_is_refused_with_numbers() -> None:
    model = tiny_model("llama", max_position_embeddings=10**9)
    with pytest.raises(
        ConfigError, match=r"needs .* MiB for 64 slots x 100000000 tokens x 2 layers, but only"
    ):
        open_runner(model, 64, 10**8)


def test_close_can_be_repeated_and_a_closed_runner_says_so() -> None:
    runner = open_runner(tiny_model("llama"))
    assert "5 slots of 80 tokens" in repr(runner)
    runner.close()
    runner.close()
    assert "closed" in repr(runner)
    with pytest.raises(RuntimeError, match="is not open"):
        runner.decode([make_sequence([1, 2])])


def test_every_eos_id_counts() -> None:
    model, tokenizer = tiny_model("llama"), TinyTokenizer()
    assert eos_ids(model, tokenizer) == frozenset()
    model.generation_config.eos_token_id = [3, 4]
    tokenizer.eos_token_id = 9
    assert eos_ids(model, tokenizer) == {3, 4, 9}
    model.generation_config.eos_token_id = 0
    assert eos_ids(model, tokenizer) == {0, 9}
