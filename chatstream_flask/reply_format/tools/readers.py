"""Readers of tool calls in JSON: one for each way in which models write them around it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from typing import Any

from ..harmony import CALL, MESSAGE
from ..markers import KIMI_CALLS
from .call_writer import CallWriter
from .characters import (
    MAX_DEPTH,
    BrokenText,
    Characters,
    Reading,
    parse_json,
    read_json,
    read_text,
)

# Reads calls from behind the text that opened them, which is its third argument.
Reader = Callable[[Characters, CallWriter, str], Reading[None]]

NAMES = ("name", "tool_name", "function")
ARGUMENTS = ("arguments", "parameters")
OTHERS = ("id", "tool_call_id", "type")
MAX_PYTHON_LEN = 100_000  # characters of a call that is written like one in Python


def json_calls(close: str = "", *, is_known: bool = False, fence: str = "") -> Reader:
    """Return a reader of an object or a list of objects, each with name and arguments.

    :param close: what the model writes behind them
    :param is_known: only the names of tools are calls
    :param fence: what the model may write before them
    """

    def read(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
        if opened == "{":
            chars.ahead = opened
        yield from chars.skip_space()
        yield from chars.optional(fence)
        yield from chars.skip_space()
        is_list = (yield from chars.peek()) == "["
        if is_list:
            yield from chars.take()
            yield from chars.skip_space()
        yield from _read_call(chars, calls, is_known=is_known)
        yield from chars.skip_space()
        while (separator := (yield from chars.peek())) in ",;{":
            if separator != "{":
                yield from chars.take()
                yield from chars.skip_space()
            yield from _read_call(chars, calls, is_known=is_known)
            yield from chars.skip_space()
        if is_list:
            yield from chars.optional("]")
        if close:
            yield from chars.skip_space()
            yield from chars.optional(close)

    return read


def arguments_of(name: str) -> Reader:
    """Return a reader of the arguments of one function."""

    def read(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
        chars.ahead = opened
        yield from read_arguments(chars, calls, name)

    return read


def function_tag(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Llama's name>{...}</function>."""
    name = yield from chars.until(">")
    yield from read_arguments(chars, calls, name)
    yield from chars.skip_space()
    yield from chars.optional("</function>")


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


def mistral(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Mistral's calls: a JSON list, or since Tekken 11 name[CALL_ID]id[ARGS]{...}."""
    yield from chars.skip_space()
    if (yield from chars.peek()) in "[{":
        yield from json_calls()(chars, calls, opened)
        return
    name = ""
    while (yield from chars.peek()) not in "[{":
        name += yield from chars.take()
        calls.check(name.strip())
    if (yield from chars.peek()) == "[":
        if (yield from chars.one_of("[ARGS]", "[CALL_ID]")) == "[CALL_ID]":
            yield from chars.until("[ARGS]")
        yield from chars.skip_space()
    yield from read_arguments(chars, calls, name.strip())


def harmony(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read a call of gpt-oss behind the header that HarmonySplitter writes: name and JSON."""
    name = yield from chars.until(MESSAGE)
    yield from chars.skip_space()
    yield from read_arguments(chars, calls, name)
    yield from chars.skip_space()
    yield from chars.optional(CALL)


DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")


def deepseek(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read DeepSeek's calls: type, name and JSON in a fence in V3 and R1, name and JSON since V3.1."""
    while True:
        if opened != DEEPSEEK[1]:
            yield from chars.skip_space()
            yield from chars.expect(DEEPSEEK[1])
        name = yield from chars.until("<｜tool▁sep｜>")
        yield from chars.skip_space()
        is_fenced = (yield from chars.peek()) != "{"
        if is_fenced:
            name = yield from chars.until("\n")
            yield from chars.expect("```json")
            yield from chars.skip_space()
        yield from read_arguments(chars, calls, name.strip())
        yield from chars.skip_space()
        if is_fenced:
            yield from chars.optional("```")
            yield from chars.skip_space()
        yield from chars.expect("<｜tool▁call▁end｜>")
        yield from chars.skip_space()
        if (yield from chars.peek()) != DEEPSEEK[1][0]:
            return
        opened = yield from chars.one_of(DEEPSEEK[1], "<｜tool▁calls▁end｜>")
        if opened != DEEPSEEK[1]:
            return


KIMI = (KIMI_CALLS, "<|tool_call_begin|>")


def kimi(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Kimi's calls: functions.name:0, then JSON."""
    while True:
        if opened != KIMI[1]:
            yield from chars.skip_space()
            yield from chars.expect(KIMI[1])
        place = yield from chars.until("<|tool_call_argument_begin|>")
        name = place.strip().removeprefix("functions.").rpartition(":")[0]
        yield from chars.skip_space()
        yield from read_arguments(chars, calls, name)
        yield from chars.skip_space()
        yield from chars.expect("<|tool_call_end|>")
        yield from chars.skip_space()
        if (yield from chars.peek()) != KIMI[1][0]:
            return
        opened = yield from chars.one_of(KIMI[1], "<|tool_calls_section_end|>")
        if opened != KIMI[1]:
            return


def apertus(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Apertus' calls: a list of objects, each with a function's name as its key."""
    yield from chars.skip_space()
    yield from chars.expect("[")
    while True:
        yield from chars.skip_space()
        yield from chars.expect("{")
        yield from chars.skip_space()
        name = yield from read_text(chars)
        yield from chars.skip_space()
        yield from chars.expect(":")
        yield from chars.skip_space()
        yield from read_arguments(chars, calls, name)
        yield from chars.skip_space()
        yield from chars.expect("}")
        yield from chars.skip_space()
        if (yield from chars.one_of(",", "]")) == "]":
            break
    yield from chars.skip_space()
    yield from chars.optional("<|tools_suffix|>")


def read_arguments(chars: Characters, calls: CallWriter, name: str) -> Reading[None]:
    """Read the arguments of a function: an object, the same as a string, or null."""
    calls.check(name)
    if (yield from chars.peek()) == "{":
        calls.begin(name)
        yield from read_json(chars, calls.write)
        calls.end()
    else:
        calls.add(name, (yield from _whole_arguments(chars)))


def _whole_arguments(chars: Characters) -> Reading[str]:
    pieces: list[str] = []
    yield from read_json(chars, pieces.append)
    text = "".join(pieces)
    value = parse_json(text)
    if isinstance(value, str):
        text = value.strip() or "{}"
        value = parse_json(text)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise BrokenText
    return text


def _read_call(chars: Characters, calls: CallWriter, *, is_known: bool) -> Reading[None]:
    """Read an object with the name of a function and its arguments, in any order.

    The call is complete when its arguments are; a missing brace behind them does no harm.
    """
    name, held, is_complete = "", None, False
    yield from chars.expect("{")
    while True:
        yield from chars.skip_space()
        key = yield from read_text(chars)
        yield from chars.skip_space()
        yield from chars.expect(":")
        yield from chars.skip_space()
        if key == "function" and (yield from chars.peek()) == "{":
            yield from _read_call(chars, calls, is_known=is_known)
            is_complete = True
        elif key in NAMES and not name:
            name = yield from read_text(chars)
            calls.check(name, is_known=is_known)
            if held is not None:
                calls.add(name, held)
                is_complete = True
        elif key in ARGUMENTS and name and not is_complete:
            yield from read_arguments(chars, calls, name)
            is_complete = True
        elif key in ARGUMENTS and held is None:
            held = yield from _whole_arguments(chars)
        elif key in OTHERS:
            yield from read_json(chars, str)
        else:
            raise BrokenText
        yield from chars.skip_space()
        if (yield from chars.peek()) != ",":
            break
        yield from chars.take()
    if not is_complete:
        if not name or (yield from chars.peek()) != "}":
            raise BrokenText
        calls.add(name, "{}")
    yield from chars.optional("}")


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
