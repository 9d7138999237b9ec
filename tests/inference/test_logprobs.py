"""Log-probabilities of the model's own distribution, only for the rows that ask."""

from __future__ import annotations

import pytest
import torch
from slot_loop import prefill
from tiny_models import make_prompt, make_sequence, random_logits, tiny_model
from torch import Tensor

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.reply_text import TokenLogprob
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.sampling.logprobs import Logprobs

CPU = torch.device("cpu")


def asking(num: int | None, slot: int = 0) -> Sequence:
    return make_sequence([1], SamplingParams(num_logprobs=num), slot=slot)


def told(logits: Tensor, ids: list[int], nums: list[int | None]) -> list[list[TokenLogprob]]:
    rows: list[Sequence | None] = [asking(num, slot) for slot, num in enumerate(nums)]
    logprobs = Logprobs(num_slots=len(rows), device=CPU)
    logprobs.start(logits, torch.tensor(ids), rows)
    logprobs.finish(ids)
    return [row.logprobs for row in rows if row is not None]


def test_values_are_log_softmax_in_descending_order() -> None:
    logits = random_logits(2, 300).bfloat16()
    expected = logits.float().log_softmax(-1)
    [[first], [second]] = told(logits, [17, 3], [20, 0])
    assert first.logprob == pytest.approx(expected[0, 17].item(), abs=1e-6)
    values, ids = expected[0].sort(descending=True, stable=True)
    assert first.top == tuple(zip(ids[:20].tolist(), values[:20].tolist(), strict=True))
    assert second == TokenLogprob(3, expected[1, 3].item(), ())


def test_a_row_gets_the_same_values_as_alone() -> None:
    logits = random_logits(6, 300).round()  # many ties
    ids, nums = [5, 6, 7, 8, 9, 10], [None, 0, 3, 20, None, 1]
    alone = [told(logits[i : i + 1], ids[i : i + 1], nums[i : i + 1])[0] for i in range(6)]
    assert told(logits, ids, nums) == alone
    assert [[len(token.top) for token in tokens] for tokens in alone] == [[], [0], [3], [20], [], [1]]


def test_ties_are_ordered_by_id_and_small_vocabularies_work() -> None:
    [[token]] = told(torch.zeros(1, 7), [2], [20])
    assert [token_id for token_id, _ in token.top] == list(range(7))
    assert token.logprob == pytest.approx(-torch.tensor(7.0).log().item())


def test_a_row_of_nan_does_not_affect_the_others() -> None:
    logits = random_logits(2, 300)
    good = told(logits, [4, 4], [2, 2])[1]
    logits[0] = torch.nan
    assert told(logits, [-1, 4], [2, 2])[1] == good


def test_padding_rows_and_other_compositions() -> None:
    logprobs, logits = Logprobs(num_slots=3, device=CPU), random_logits(3, 300)
    first, last, silent = asking(1), asking(2, 2), asking(None)
    compositions: list[list[Sequence | None]] = [
        [silent, None, last],
        [silent],
        [first, None, last],
        [first],
    ]
    for rows in compositions:
        logprobs.start(logits[: len(rows)], torch.arange(len(rows)), rows)
        logprobs.finish(list(range(len(rows))))
    assert [token.token_id for token in first.logprobs] == [0, 0] and silent.logprobs == []
    assert [token.token_id for token in last.logprobs] == [2, 2]
    assert last.logprobs[0] == last.logprobs[1] and len(last.logprobs[0].top) == 2


def test_penalties_and_temperature_do_not_change_them() -> None:
    """Prefill and decode agree with the model's own forward pass."""
    model = tiny_model("llama")
    prompt = make_prompt(9)
    params = SamplingParams(
        temperature=0.3, seed=5, num_logprobs=2, frequency_penalty=2, logit_bias=((7, 100.0),), top_k=3
    )
    runner = ModelRunner(PreparedModel(model, 40), object(), num_slots=1)
    runner.open()
    sequence = make_sequence(prompt, params)
    sequence.token_ids += prefill(runner, sequence, 9)
    sequence.num_cached = 9
    for _ in range(5):
        sequence.token_ids += runner.decode([sequence])[0]
        sequence.num_cached += 1
    with torch.inference_mode():
        expected = model(torch.tensor([sequence.token_ids])).logits[0].log_softmax(-1)
    assert [token.token_id for token in sequence.logprobs] == sequence.token_ids[9:]
    for i, token in enumerate(sequence.logprobs):
        assert token.logprob == pytest.approx(expected[8 + i, token.token_id].item(), abs=1e-3)
        assert [top_id for top_id, _ in token.top] == expected[8 + i].topk(2).indices.tolist()
    assert 7 in sequence.token_ids  # because of the bias
