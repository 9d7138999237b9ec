"""The format that an answer must have, under the names that servers and clients have for it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..config import shown
from ..grammar.schema import choice_grammar, client_grammar, json_schema_grammar, regex_grammar
from .errors import ApiError
from .schema import Body, ResponseFormat, StructuredOutputs

JSON_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class AnswerFormat:
    """What one field of a request demands of the answer."""

    field: str  # its name
    kind: str  # "json", "regex", "choice" or "grammar"
    value: Any

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that the answer conforms to; None if it is not JSON."""
        return self.value if self.kind == "json" else None

    def to_grammar(self) -> str:
        """Return the grammar of the answer.

        :raises BadRequest: it has something that is not supported
        """
        if self.kind == "json":
            return json_schema_grammar(self.value)
        if self.kind == "regex":
            return regex_grammar(self.value)
        return choice_grammar(self.value) if self.kind == "choice" else client_grammar(self.value)


def answer_format(body: Body) -> AnswerFormat | None:
    """Return the format that a request asks for; None if the answer is free.

    :raises ApiError: two fields ask for one, or the value of a field makes no sense
    """
    plain = (
        ("guided_json", "json", body.guided_json),
        ("guided_regex", "regex", body.guided_regex),
        ("guided_choice", "choice", body.guided_choice),
        ("guided_grammar", "grammar", body.guided_grammar),
        ("json_schema", "json", body.json_schema),
        ("grammar", "grammar", body.grammar),
        ("regex", "regex", body.regex),
        ("ebnf", "grammar", body.ebnf),
        ("format", "json", JSON_OBJECT if body.format == "json" else body.format),
    )
    found = [AnswerFormat(field, kind, value) for field, kind, value in plain if value not in (None, "")]
    found += _of_response_format(body.response_format) + _of_structured_outputs(body.structured_outputs)
    if len(found) > 1:
        raise ApiError(
            f"{found[0].field} and {found[1].field} both say what the answer must be; give one of them",
            param=found[1].field,
        )
    return _checked(found[0]) if found else None


def _of_response_format(given: ResponseFormat | None) -> list[AnswerFormat]:
    if given is None or given.type == "text":
        return []
    if given.type == "json_object":
        schema = given.schema  # of llama.cpp
        return [AnswerFormat("response_format", "json", JSON_OBJECT if schema is None else schema)]
    if given.json_schema is None:
        raise ApiError("response_format.json_schema is missing", param="response_format.json_schema")
    return [AnswerFormat("response_format", "json", given.json_schema.schema)]


def _of_structured_outputs(given: StructuredOutputs | None) -> list[AnswerFormat]:
    if given is None:
        return []
    if given.structural_tag is not None:
        name = "structured_outputs.structural_tag"
        raise ApiError(f"{name} is not supported", param=name, code="unsupported_parameter")
    formats = [
        ("json", "json", given.json),
        ("json_object", "json", JSON_OBJECT if given.json_object else None),
        ("regex", "regex", given.regex),
        ("choice", "choice", given.choice),
        ("grammar", "grammar", given.grammar),
    ]
    return [
        AnswerFormat(f"structured_outputs.{field}", kind, value)
        for field, kind, value in formats
        if value is not None
    ]


def _checked(given: AnswerFormat) -> AnswerFormat:
    """Return a format whose schema is an object; clients may also send a schema as text."""
    if given.kind != "json":
        return given
    schema = given.value
    with suppress(ValueError, RecursionError):
        schema = json.loads(schema) if isinstance(schema, str) else schema
    if not isinstance(schema, dict):
        raise ApiError(f"{given.field} must be a JSON schema, not {shown(schema)}", param=given.field)
    return replace(given, value=schema)
