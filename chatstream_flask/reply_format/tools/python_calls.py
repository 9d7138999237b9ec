"""Readers of tool calls that are written as in Python."""

from __future__ import annotations

import ast
import json
from typing import Any

from .call_writer import CallWriter
from .characters import MAX_DEPTH, BrokenText, Characters, Reading
from .json_calls import Reader, json_calls

MAX_PYTHON_LEN = 100_000  # characters of a call that is written like one in Python


def python_tag(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read what Llama writes behind <|python_tag|>: JSON, or name.call(argument="value")."""
    yield from chars.skip_space()
    if (yield from chars.peek()) in "[{":
        yield from json_calls()(chars, calls, opened)
        return
    name = yield from chars.until(".call(")
    calls.check(name, is_known=True)
    _add_python_call(calls, f"{name}({(yield from _balanced(chars, ')'))}")


def python_calls(close: str) -> Reader:
    """Return a reader of a list of calls as in Python, [f(a="x"), g()], or in JSON."""

    def read(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
        yield from chars.skip_space()
        yield from chars.expect("[")
        yield from chars.skip_space()
        if (yield from chars.peek()) == "{":
            yield from json_calls("]" + close)(chars, calls, "")
            return
        _add_python_call(calls, "[" + (yield from _balanced(chars, "]")))
        yield from chars.skip_space()
        yield from chars.optional(close)

    return read


def _balanced(chars: Characters, close: str) -> Reading[str]:
    """Take Python source up to and including the bracket that closes an open one."""
    text, quote, closers = "", "", [close]
    while closers:
        char = yield from chars.take()
        text += char
        if len(text) > MAX_PYTHON_LEN:
            raise BrokenText
        if quote:
            if char == "\\":
                text += yield from chars.take()
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "([{":
            closers.append({"(": ")", "[": "]", "{": "}"}[char])
            if len(closers) > MAX_DEPTH:
                raise BrokenText
        elif char in ")]}" and char != closers.pop():
            raise BrokenText
    return text


def _add_python_call(calls: CallWriter, source: str) -> None:
    """Add the calls of a Python expression whose arguments are literals."""
    try:
        tree = ast.parse(source, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        found = [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise BrokenText from error
    if not found:
        raise BrokenText
    for name, _ in found:
        calls.check(name)
    for name, arguments in found:
        calls.add(name, arguments)


def _python_call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("not a call with named arguments")
    values: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in values:
            raise ValueError("not a call with named arguments")
        values[keyword.arg] = ast.literal_eval(keyword.value)
    return node.func.id, json.dumps(values, ensure_ascii=False, allow_nan=False)
