"""Structured output of random models conforms to the grammar, and other rows are not affected."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from fakes import Bench
from llguidance import LLMatcher
from tiny_models import make_prompt, tiny_model
from transformers import AutoTokenizer

from chatstream_flask import demo_model
from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reasoning import Reasoning
from chatstream_flask.engine.reasoning_matcher import ReasoningMatcher
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.sequence import Matcher
from chatstream_flask.errors import BadRequest
from chatstream_flask.grammar.matcher import GrammarCompiler
from chatstream_flask.grammar.schema import json_schema_grammar
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.model_source import make_source
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags

MAX_LEN = 450
EOS_ID = 1
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "世界"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@cache
def tokenizer() -> Any:
    auto: Any = AutoTokenizer
    return auto.from_pretrained(demo_model.PATH)


@cache
def compiler() -> GrammarCompiler:
    return GrammarCompiler(tokenizer(), lambda: frozenset({EOS_ID}))


@cache
def model() -> Any:
    return tiny_model("llama", vocab_size=1030, max_position_embeddings=512)  # 30 more than the tokenizer has


def open_runner(num_slots: int) -> ModelRunner:
    runner = ModelRunner(
        PreparedModel(model(), MAX_LEN), tokenizer(), num_slots=num_slots, grammars=compiler()
    )
    runner.open()
    return runner


def regex_grammar(pattern: str) -> str:
    grammar: str = LLMatcher.grammar_from_regex(pattern)
    return grammar


def ask(params: SamplingParams, number: int = 0) -> GenerationRequest:
    return GenerationRequest(make_prompt(3 + number % 7, number), params)


def serve(requests: list[GenerationRequest], num_slots: int) -> None:
    runner = open_runner(num_slots)
    bench = Bench(slots=[num_slots], num_waiting=99, chunk_len=4, make_runner=lambda: runner)
    bench.submit(*requests)
    bench.finish_all()


def reason(request: GenerationRequest) -> FinishReason:
    assert request.outcome is not None
    return request.outcome.finish_reason


@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_a_json_schema_answer_always_parses(temperature: float) -> None:
    grammar = json_schema_grammar(PERSON)
    requests = [
        ask(
            SamplingParams(temperature=temperature, top_k=None, seed=i, grammar=grammar),
            i,
        )
        for i in range(12)
    ]
    serve(requests, 4)
    for request in requests:
        assert reason(request) is FinishReason.STOP
        person = json.loads(request.text)
        assert list(person) == ["name", "age", "tags"] and len(person["name"]) <= 10
        assert 0 <= person["age"] <= 150 and set(person["tags"]) <= {"a", "b", "世界"}


def test_a_cut_reply_ends_with_finish_reason_length() -> None:
    grammar = json_schema_grammar({"type": "object"})
    requests = [
        ask(SamplingParams(seed=i, max_new_tokens=12, temperature=2, grammar=grammar), i) for i in range(9)
    ]
    serve(requests, 3)
    for request in requests:
        if reason(request) is FinishReason.STOP:
            assert isinstance(json.loads(request.text), dict)
        else:
            assert (reason(request), request.num_generated) == (FinishReason.LENGTH, 12)
    assert FinishReason.LENGTH in map(reason, requests)


def test_a_grammar_completed_by_the_last_token_ends_with_stop() -> None:
    request = ask(SamplingParams(grammar=regex_grammar("[ab]{3}"), max_new_tokens=3))
    serve([request], 1)
    assert re.fullmatch("[ab]{3}", request.text) and reason(request) is FinishReason.STOP


def test_the_model_decides_whether_an_optional_part_follows() -> None:
    """The EOS token is allowed as soon as the grammar is complete, and not before."""
    grammar = regex_grammar("[ab]{3}[c]*")
    for bias, expected in ((100.0, "[ab]{3}"), (-100.0, "[ab]{3}c+")):
        request = ask(
            SamplingParams(temperature=0, max_new_tokens=20, grammar=grammar, logit_bias=((EOS_ID, bias),))
        )
        serve([request], 1)
        assert re.fullmatch(expected, request.text)
        assert reason(request) is (FinishReason.STOP if bias > 0 else FinishReason.LENGTH)


def test_stop_strings_work_within_a_grammar() -> None:
    request = ask(SamplingParams(grammar=regex_grammar("hello, world"), stop=("o, w",), max_new_tokens=20))
    serve([request], 1)
    assert (request.text, reason(request)) == ("hell", FinishReason.STOP)


def test_a_grammar_too_costly_for_a_step_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    costly = ask(SamplingParams(grammar=regex_grammar(r"(\w|\d){0,500}\w{500}(a|b|ab|ba){1000}.*a.{3000}")))
    plain = ask(SamplingParams(temperature=0, max_new_tokens=30))
    alone = ask(SamplingParams(temperature=0, max_new_tokens=30))
    serve([costly, plain], 2)
    serve([alone], 1)
    assert reason(costly) is FinishReason.ERROR and "too costly in mid-reply" in caplog.text
    assert (plain.text, reason(plain)) == (alone.text, FinishReason.LENGTH)


MIXED = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0, frequency_penalty=1.5, num_logprobs=3),
    SamplingParams(seed=2, top_k=None, min_p=0.03, presence_penalty=-1),
    SamplingParams(seed=3, top_k=20, top_p=0.9, repetition_penalty=1.4, num_logprobs=0),
    SamplingParams(seed=4, temperature=2, top_k=None, grammar=json_schema_grammar(PERSON), num_logprobs=20),
    SamplingParams(temperature=0, grammar=json_schema_grammar({"type": "object"})),
    SamplingParams(seed=6, temperature=0.5, logit_bias=((40, 30.0), (41, -100.0), (900, 29.0))),
    SamplingParams(seed=7, grammar=regex_grammar(r"(\d\d?, )*\d+\."), frequency_penalty=0.5),
    SamplingParams(seed=8, top_k=3, min_p=0.5, presence_penalty=2, logit_bias=((1, 5.0),), num_logprobs=1),
    SamplingParams(temperature=0, repetition_penalty=1.1, repetition_penalty_method="subtractive", min_p=1),
]


def test_rows_with_different_settings_reply_as_each_does_alone() -> None:
    """Equal up to what batching changes in the model's own forward pass, about 1e-5 here."""
    alone, together, in_turn = ([ask(params, i) for i, params in enumerate(MIXED)] for _ in range(3))
    for request in alone:
        serve([request], 1)
    serve(together, 10)
    serve(in_turn, 3)  # they join and leave, and move to other slots
    for one, two, three in zip(alone, together, in_turn, strict=True):
        assert one.text == two.text == three.text and one.num_generated == two.num_generated
        assert reason(one) is reason(two) is reason(three)
        tokens = [request.token_logprobs(0) for request in (one, two, three)]
        ids = [[(t.token_id, [i for i, _ in t.top]) for t in logprobs] for logprobs in tokens]
        assert ids[0] == ids[1] == ids[2]
        values = [[v for t in logprobs for v in (t.logprob, *(v for _, v in t.top))] for logprobs in tokens]
        assert values[1] == pytest.approx(values[0], abs=1e-3)
        assert values[2] == pytest.approx(values[0], abs=1e-3)


def test_a_grammar_allows_the_tag_of_reasoning_before_its_own_beginning() -> None:
    grammar = json_schema_grammar(PERSON)
    first = allowed(compiler().matcher(grammar))
    matcher = ReasoningMatcher(compiler().matcher(grammar), may_begin(40, 41))
    assert 40 not in first and allowed(matcher) == first | {40}
    assert not matcher.accept(40)
    assert allowed(matcher) == {41}
    assert not matcher.accept(41)
    assert 7 not in first and allowed(matcher) == first | {7}
    assert not matcher.accept(7)
    assert allowed(matcher) == first
    matcher = ReasoningMatcher(compiler().matcher(grammar), may_begin(40, 41))
    (brace,) = tokenizer().encode("{", add_special_tokens=False)
    assert brace in first and not matcher.accept(brace)
    assert 40 not in allowed(matcher)


def test_a_tag_that_begins_like_the_grammar_is_not_offered() -> None:
    first, second, third = tokenizer().encode("<ab", add_special_tokens=False)
    matcher = ReasoningMatcher(compiler().matcher(regex_grammar("<c*")), may_begin(first, second, third))
    assert first in allowed(matcher) and not matcher.accept(first)
    assert second not in allowed(matcher)


@pytest.mark.parametrize("num_others", [0, 1])
def test_a_grammar_holds_from_the_end_of_reasoning_on(num_others: int) -> None:
    """Also where the batch stays the same when it ends, and beside a reply that begins in the grammar."""
    closing_ids = tokenizer().encode("\n</think>\n\n", add_special_tokens=False)
    params = SamplingParams(temperature=0, max_new_tokens=20, grammar=regex_grammar("Ann|Bob"))
    splitter = ReasoningTags("<think>", "</think>").make_splitter("<think>")
    reasoning = Reasoning(splitter=splitter, closing_ids=closing_ids, max_tokens=5)
    request = GenerationRequest(make_prompt(4, 0), params, reasoning=reasoning)
    others = [ask(replace(params, grammar=regex_grammar("[ab]{40}")), 3) for _ in range(num_others)]
    serve([request, *others], 2)
    assert request.text in ("Ann", "Bob") and reason(request) is FinishReason.STOP
    assert request.num_reasoning == 5 + len(closing_ids)


def may_begin(*opening_ids: int) -> Reasoning:
    splitter = ReasoningTags("<think>", "</think>").make_splitter("")
    return Reasoning(
        splitter=splitter, closing_ids=(), max_tokens=9, opening_ids=opening_ids, separator_ids=(7,)
    )


def allowed(matcher: Matcher) -> set[int]:
    mask = torch.zeros(matcher.num_bytes, dtype=torch.uint8)
    assert matcher.write_mask(mask.data_ptr(), matcher.num_bytes)
    return {i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1}


def test_a_grammar_that_cannot_be_compiled_is_refused() -> None:
    schema = {"allOf": [{"type": "integer", "multipleOf": p} for p in (9973, 9967, 9949)]}
    with pytest.raises(BadRequest, match="the grammar cannot be used: fuel exhausted"):
        compiler().matcher(json_schema_grammar(schema))
    with pytest.raises(BadRequest, match="the grammar cannot be used"):
        compiler().matcher("nonsense")


def test_the_source_of_a_model_checks_its_grammars_and_its_vocabulary() -> None:
    source = make_source(model(), tokenizer(), None, 64, None, False, None)
    source.check(SamplingParams(grammar=json_schema_grammar(PERSON), logit_bias=((1029, 1),)))
    with pytest.raises(BadRequest, match="the grammar cannot be used"):
        source.check(SamplingParams(grammar="nonsense"))
    with pytest.raises(BadRequest, match="contains token id 1030; this model has token ids 0 to 1029"):
        source.check(SamplingParams(logit_bias=((1030, 1),)))


def test_a_tokenizer_without_a_rust_backend_is_refused() -> None:
    with pytest.raises(BadRequest, match="this model's tokenizer does not support structured output"):
        GrammarCompiler(object(), lambda: frozenset({1})).matcher(json_schema_grammar({"type": "object"}))
