"""A function becomes a tool by its signature and docstring."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from chatstream_flask import ReplyContext
from chatstream_flask.errors import ConfigError
from chatstream_flask.hooks.tools import Tool, WrongArguments, make_tool, text_of_result


def tool(function: Any, **options: Any) -> Tool:
    given = {"confirm": False, "timeout_sec": 1.0, "max_calls": 4, "max_calls_per_minute": None} | options
    return make_tool(function, **given)


def order_status(
    number: int,
    reply: ReplyContext,
    detail: Literal["short", "long"] = "short",
    tags: list[str] | None = None,
) -> str:
    """Look an order of the customer up by its number, or fail.

    :param number: as on the invoice
    :param detail: how much to tell
    """
    return f"{number} {detail} {tags} {reply}"


def google(city: str) -> str:
    """Return the weather.

    Args:
        city (str): name of a city
    """
    return city


def test_the_model_is_told_types_defaults_and_what_the_docstring_says() -> None:
    function = tool(order_status).definition["function"]
    assert function["name"] == "order_status"
    assert function["description"] == "Look an order of the customer up by its number, or fail."
    texts = {"type": "array", "items": {"type": "string"}}
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "number": {"type": "integer", "description": "as on the invoice"},
            "detail": {"enum": ["long", "short"], "description": "how much to tell", "default": "short"},
            "tags": {"anyOf": [texts, {"type": "null"}], "default": None},
        },
        "required": ["number"],
        "additionalProperties": False,
    }


def test_a_docstring_in_the_style_of_google_is_read() -> None:
    properties = tool(google).parameters["properties"]
    assert properties == {"city": {"type": "string", "description": "name of a city"}}


def test_arguments_are_converted_and_the_reply_is_passed() -> None:
    context: Any = "the reply"
    assert tool(order_status).bind('{"number": "7", "tags": ["a"]}', context)() == "7 short ['a'] the reply"


@pytest.mark.parametrize(
    "arguments",
    ["{}", '{"number": "x"}', '{"number": 1, "reply": 2}', "[]", "{", '{"number": 1, "detail": "no"}'],
)
def test_arguments_that_do_not_fit_never_reach_the_function(arguments: str) -> None:
    with pytest.raises(WrongArguments):
        tool(order_status).bind(arguments, None)  # type: ignore[arg-type]


def no_docstring(a: int) -> None: ...


def no_hint(a) -> None:  # type: ignore[no-untyped-def]
    """Do it."""


def rest(*a: int) -> None:
    """Do it."""


async def later(a: int) -> None:
    """Do it."""


@pytest.mark.parametrize(
    ("function", "words"),
    [(no_docstring, "docstring"), (no_hint, "type hint"), (rest, "named parameters"), (later, "async")],
)
def test_a_function_that_cannot_be_described_is_refused(function: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tool(function)


def test_a_visitor_may_call_so_often_in_a_minute() -> None:
    limited = tool(google, max_calls_per_minute=2)
    assert [limited.may_call("a", now) for now in (0, 30, 59, 61)] == [True, True, False, True]
    assert limited.may_call("b", 59)


def test_results_are_texts_or_json_of_limited_length() -> None:
    assert text_of_result("は") == "は"
    assert text_of_result({"a": ["は", None]}) == '{"a": ["は", null]}'
    assert len(text_of_result("x" * 10_000)) == 8193
