"""Readers of tool calls in JSON: objects with a name and arguments, or the arguments alone."""

from __future__ import annotations

from collections.abc import Callable

from .call_writer import CallWriter
from .characters import BrokenText, Characters, Reading, parse_json, read_json, read_text

# Reads calls from behind the text that opened them, which is its third argument.
Reader = Callable[[Characters, CallWriter, str], Reading[None]]

NAMES = ("name", "tool_name", "function")
ARGUMENTS = ("arguments", "parameters")
OTHERS = ("id", "tool_call_id", "type")


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
