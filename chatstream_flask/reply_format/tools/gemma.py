"""A reader of Gemma 4's tool calls, which are written in a JSON of their own."""

from __future__ import annotations

import json

from .call_writer import CallWriter
from .characters import MAX_DEPTH, BrokenText, Characters, Reading, Write, read_scalar

OPENER = "<|tool_call>"
CLOSER = "<tool_call|>"
QUOTE = '<|"|>'


def gemma(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read call:name{key:<|"|>text<|"|>,other:[1,2]} and write the arguments as JSON."""
    yield from chars.expect("call:")
    name = ""
    while (yield from chars.peek()) != "{":
        name += yield from chars.take()
        calls.check(name)
    calls.begin(name)
    yield from _read_value(chars, calls.write, 0)
    calls.end()
    yield from chars.optional(CLOSER)


def _read_value(chars: Characters, write: Write, depth: int) -> Reading[None]:
    char = yield from chars.peek()
    if char == "<":
        yield from _read_string(chars, write)
    elif char not in "{[":
        yield from read_scalar(chars, write)
    elif depth == MAX_DEPTH:
        raise BrokenText
    else:
        yield from _read_items(chars, write, depth)


def _read_items(chars: Characters, write: Write, depth: int) -> Reading[None]:
    """Read an object or an array."""
    opener = yield from chars.take()
    closer = "}" if opener == "{" else "]"
    write(opener)
    while (yield from chars.peek()) != closer:
        if opener == "{":
            yield from _read_key(chars, write)
        yield from _read_value(chars, write, depth + 1)
        if (yield from chars.peek()) != closer:
            yield from chars.expect(",")
            write(", ")
            if (yield from chars.peek()) == closer:
                raise BrokenText
    write((yield from chars.take()))


def _read_key(chars: Characters, write: Write) -> Reading[None]:
    if (yield from chars.peek()) == "<":
        yield from _read_string(chars, write)
        yield from chars.expect(":")
    else:
        write(json.dumps((yield from chars.until(":")), ensure_ascii=False))
    write(": ")


def _read_string(chars: Characters, write: Write) -> Reading[None]:
    yield from chars.expect(QUOTE)
    write('"')
    yield from chars.stream_until((QUOTE,), lambda text: write(json.dumps(text, ensure_ascii=False)[1:-1]))
    write('"')
