"""JSON schemas that become grammars, and the messages for those that are refused."""

from __future__ import annotations

import re
import resource
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from chatstream_flask.config import SamplingParams
from chatstream_flask.errors import BadRequest, GenerationError
from chatstream_flask.grammar import schema as json_schema
from chatstream_flask.grammar.schema import json_schema_grammar
from chatstream_flask.model_source import make_source


@pytest.fixture(autouse=True)
def a_busy_machine_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_schema, "MAX_WAIT_SEC", 60.0)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ([], "a JSON schema must be an object, not []"),
        (True, "a JSON schema must be an object, not True"),
        ("{}", "a JSON schema must be an object, not '{}'"),
        ({"type": "objekt"}, "the JSON schema cannot be used: Invalid type: objekt"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
        ({"$ref": "http://127.0.0.1/x"}, "does not fetch resources"),
        ({"enum": []}, "Unsatisfiable schema"),
        ({"const": "x" * 70_000}, "the JSON schema has 70013 bytes; at most 65536 are allowed"),
        ({"const": {1, 2}}, "the JSON schema is not JSON: Object of type set is not JSON serializable"),
        ({"const": float("nan")}, "the JSON schema is not JSON: Out of range float values"),
        ({"const": "\ud800"}, "the JSON schema is not JSON: 'utf-8' codec can't encode"),
        ({"allOf": [{"pattern": f".*a.{{{i}}}"} for i in range(30)]}, "it is too costly"),
        (nested(33), "the JSON schema is nested more than 32 levels deep"),
        (nested(100_000), "the JSON schema is nested more than 32 levels deep"),
    ],
    ids=range(15),
)
def test_an_unusable_schema_is_refused_with_the_reason(schema: Any, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        json_schema_grammar(schema)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_costly_schema_is_given_up_soon() -> None:
    """Most of the time went into imports of the process that checks it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(BadRequest, match="it is too costly"):
        json_schema_grammar({"allOf": [{"pattern": f".*b.{{{i}}}"} for i in range(30)]})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_grammars_are_accepted_by_sampling_params() -> None:
    for grammar in (json_schema_grammar(nested(32)), json_schema_grammar({"type": "object"})):
        assert SamplingParams(grammar=grammar).grammar == grammar


def test_a_schema_cannot_set_options_of_llguidance() -> None:
    options = {"item_separator": " and ", "whitespace_pattern": ".*", "lenient": True}
    assert json_schema_grammar({"x-guidance": options}) == json_schema_grammar({})
    with pytest.raises(BadRequest, match="Unimplemented keys"):
        json_schema_grammar({"x-guidance": options, "not": {"type": "string"}})


def test_missing_llguidance_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(BadRequest, match=re.escape("chatstream-flask[structured] is not installed")):
        json_schema_grammar({"type": "object"})


def test_a_check_that_cannot_be_started_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    never_validated = {"const": "never validated before"}
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(GenerationError, match="no process can be started"):
        json_schema_grammar(never_validated)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(GenerationError, match="see the server's log"):
        json_schema_grammar(never_validated)
    monkeypatch.undo()
    assert json_schema_grammar(never_validated)


def test_the_mock_does_not_support_structured_output() -> None:
    source = make_source(None, None, None, 64, None, True, None)
    source.check(SamplingParams(logit_bias=((10**9, 1),), num_logprobs=5))  # ignored, as documented
    with pytest.raises(BadRequest, match="the mock does not support structured output"):
        source.check(SamplingParams(grammar=json_schema_grammar({"type": "object"})))


def test_a_logit_bias_of_an_unknown_token_is_refused() -> None:
    config = SimpleNamespace(max_position_embeddings=128, vocab_size=200)

    def model() -> None: ...

    model.config = SimpleNamespace(get_text_config=lambda: config)  # type: ignore[attr-defined]
    source = make_source(model, SimpleNamespace(decode=str), None, 64, None, False, None)
    source.check(SamplingParams(logit_bias=((199, 1),)))
    with pytest.raises(BadRequest, match="contains token id 200; this model has token ids 0 to 199"):
        source.check(SamplingParams(logit_bias=((3, 1), (200, 1))))
