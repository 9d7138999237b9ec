"""Log-probabilities of a prompt are those of the model's own forward pass."""

from __future__ import annotations

import pytest
import torch
from fakes import Bench
from tiny_models import IdsAsText, TinyTokenizer, make_prompt, make_sequence, tiny_model

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reply_text import TokenLogprob
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.sequence import Chunk
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.sampling.prompt_logprobs import prompt_logprobs

CONTEXT_LEN = 200
SCORED = SamplingParams(temperature=0, max_new_tokens=1, num_prompt_logprobs=3)
PLAIN = SamplingParams(temperature=0, max_new_tokens=40)


def make_runner(kind: str) -> ModelRunner:
    runner = IdsAsText(PreparedModel(tiny_model(kind), CONTEXT_LEN), TinyTokenizer(), num_slots=3)
    runner.open()
    return runner


def check(model: torch.nn.Module, ids: list[int], logprobs: list[TokenLogprob]) -> None:
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert [entry.token_id for entry in logprobs] == ids[1:]
    for scores, entry in zip(expected, logprobs, strict=False):
        assert entry.logprob == pytest.approx(scores[entry.token_id].item(), abs=1e-3)
        assert [i for i, _ in entry.top] == scores.topk(3).indices.tolist()
        assert [value for _, value in entry.top] == pytest.approx(scores.topk(3).values.tolist(), abs=1e-3)
        assert entry.rank == 1 + int((scores > scores[entry.token_id]).sum())


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "deepseek_v3", "gpt2"])
def test_they_do_not_depend_on_chunks_on_other_replies_and_on_earlier_prompts(kind: str) -> None:
    bench = Bench(slots=[3], chunk_len=100, make_runner=lambda: make_runner(kind))
    prompt, model = make_prompt(150), tiny_model(kind)
    earlier = GenerationRequest(prompt, PLAIN, cache_owner="me")
    bench.submit(earlier)
    bench.finish_all()
    beside, again = (
        GenerationRequest(make_prompt(20), PLAIN),
        GenerationRequest(prompt, SCORED, cache_owner="me"),
    )
    bench.submit(beside, again)
    bench.finish_all()
    assert again.outcome is not None and again.outcome.cached_tokens == 0
    check(model, prompt, again.prompt_logprobs)
    assert again.text == earlier.text[0]
    following = GenerationRequest(prompt, PLAIN, cache_owner="me")
    alone = GenerationRequest(make_prompt(20), PLAIN)
    bench.submit(following, alone)
    bench.finish_all()
    assert (following.text, alone.text) == (earlier.text, beside.text)
    assert following.outcome is not None and following.outcome.cached_tokens == len(prompt) - 1


def test_a_prompt_that_fills_the_context_is_computed_and_nothing_generated() -> None:
    bench = Bench(slots=[1], make_runner=lambda: make_runner("llama"))
    prompt = make_prompt(CONTEXT_LEN)
    request = GenerationRequest(prompt, SCORED, is_prompt_only=True)
    bench.submit(request)
    bench.finish_all()
    assert request.outcome is not None and request.outcome.finish_reason is FinishReason.LENGTH
    assert (request.outcome.completion_tokens, request.text) == (0, "")
    check(tiny_model("llama"), prompt, request.prompt_logprobs)


def test_a_chunk_that_is_computed_again_has_its_values_once() -> None:
    runner, prompt = make_runner("llama"), make_prompt(90)
    sequence = make_sequence(prompt, SCORED)
    for start, num_tokens in ((0, 70), (0, 70), (70, 20), (70, 20)):
        sequence.num_cached = start
        runner.prefill([Chunk(sequence, num_tokens)])()
    check(tiny_model("llama"), prompt, sequence.prompt_logprobs)


def test_the_rank_counts_the_tokens_that_are_more_likely() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    first, second = prompt_logprobs(logits, [1, 2], num_top=5)
    assert (first.rank, [i for i, _ in first.top]) == (3, [0, 2, 1])
    assert second.rank == 1 and second.logprob == pytest.approx(-torch.tensor(3.0).log().item())
    assert [entry.top for entry in prompt_logprobs(logits, [1, 2], num_top=0)] == [(), ()]
