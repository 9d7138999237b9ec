"""Reading a text that arrives in pieces: generators that are sent one character at a time.

A reader is an ordinary function but for `yield from`, at which it waits for the next character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Reading = Generator[None, str, T]
Write = Callable[[str], object]

SPACE = " \t\r\n"
MAX_NAME_LEN = 256  # characters of a name with what stands around it
MAX_DEPTH = 64  # nested objects and arrays
SCALAR = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)
SCALAR_CHARS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
HEX = frozenset("0123456789abcdefABCDEF")


class BrokenText(Exception):
    """The text is not what its beginning promised; the character that shows it has not been taken."""


class Characters:
    """The characters of a text, with one character of look-ahead."""

    def __init__(self) -> None:
        self.ahead = ""  # the next character, if it was looked at and not taken

    def peek(self) -> Reading[str]:
        if not self.ahead:
            self.ahead = yield
        return self.ahead

    def take(self) -> Reading[str]:
        char = yield from self.peek()
        self.ahead = ""
        return char

    def skip_space(self) -> Reading[None]:
        while (yield from self.peek()) in SPACE:
            self.ahead = ""

    def expect(self, text: str) -> Reading[None]:
        """Take `text`; raise BrokenText if something else comes."""
        for char in text:
            if (yield from self.peek()) != char:
                raise BrokenText
            self.ahead = ""

    def one_of(self, *texts: str) -> Reading[str]:
        """Take one of several texts, none of which is the beginning of another, and return it."""
        taken = ""
        while taken not in texts:
            taken += yield from self.peek()
            if not any(text.startswith(taken) for text in texts):
                raise BrokenText
            self.ahead = ""
        return taken

    def optional(self, text: str) -> Reading[bool]:
        """Take `text` if its first character comes next; return whether it did."""
        if not text or (yield from self.peek()) != text[0]:
            return False
        yield from self.expect(text)
        return True

    def until(self, end: str, max_len: int = MAX_NAME_LEN) -> Reading[str]:
        """Take everything up to and including `end`; return it without `end`."""
        taken = ""
        while not taken.endswith(end):
            if len(taken) >= max_len:
                raise BrokenText
            taken += yield from self.take()
        return taken.removesuffix(end)

    def stream_until(self, ends: Sequence[str], write: Write) -> Reading[None]:
        """Take everything up to and including one of `ends`; write what cannot be part of it at once."""
        held = ""
        while not held.endswith(tuple(ends)):
            certain = len(held) - num_uncertain(held, ends)
            write(held[:certain])
            held = held[certain:] + (yield from self.take())
        write(next(held.removesuffix(end) for end in ends if held.endswith(end)))


def num_uncertain(text: str, wanted: Collection[str]) -> int:
    """Return the length of the longest end of a text with which one of the wanted texts may begin."""
    lengths = range(min(len(text), max(map(len, wanted), default=0)), 0, -1)
    return next((n for n in lengths if any(each.startswith(text[-n:]) for each in wanted)), 0)


def read_json(chars: Characters, write: Write) -> Reading[None]:
    """Read one JSON value and write it as it comes; control characters in strings are escaped.

    :raises BrokenText: it is not JSON (NaN, for example), or nested too deeply
    """
    closers: list[str] = []
    while True:
        char = yield from chars.peek()
        if char in "{[":
            if len(closers) == MAX_DEPTH:
                raise BrokenText
            write((yield from chars.take()))
            closers.append("}" if char == "{" else "]")
            yield from _write_space(chars, write)
            if (yield from chars.peek()) != closers[-1]:
                yield from _read_key(chars, write, closers)
                continue
        elif char == '"':
            yield from read_string(chars, write)
        else:
            yield from read_scalar(chars, write)
        while closers:
            yield from _write_space(chars, write)
            char = yield from chars.peek()
            if char not in (closers[-1], ","):
                raise BrokenText
            write((yield from chars.take()))
            if char == ",":
                yield from _write_space(chars, write)
                yield from _read_key(chars, write, closers)
                break
            closers.pop()
        if not closers:
            return


def read_string(chars: Characters, write: Write) -> Reading[None]:
    """Read a JSON string with its quotes."""
    yield from chars.expect('"')
    write('"')
    while True:
        char = yield from chars.take()
        if char == "\\":
            escape = yield from chars.peek()
            if escape not in '"\\/bfnrtu':
                raise BrokenText
            write(char + (yield from chars.take()))
            for _ in range(4 if escape == "u" else 0):
                if (yield from chars.peek()) not in HEX:
                    raise BrokenText
                write((yield from chars.take()))
            continue
        write(char if char >= " " else json.dumps(char)[1:-1])
        if char == '"':
            return


def read_text(chars: Characters) -> Reading[str]:
    """Read a JSON string and return the text that it stands for."""
    pieces: list[str] = []
    yield from read_string(chars, pieces.append)
    return str(json.loads("".join(pieces)))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    :raises BrokenText: it is not JSON
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BrokenText from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_scalar(chars: Characters, write: Write) -> Reading[None]:
    text = ""
    while (yield from chars.peek()) in SCALAR_CHARS:
        text += yield from chars.take()
    if not SCALAR.fullmatch(text):
        raise BrokenText
    write(text)


def _read_key(chars: Characters, write: Write, closers: list[str]) -> Reading[None]:
    """Read a key and its colon, if the innermost value is an object."""
    if closers[-1] == "]":
        return
    yield from read_string(chars, write)
    yield from _write_space(chars, write)
    yield from chars.expect(":")
    write(":")
    yield from _write_space(chars, write)


def _write_space(chars: Characters, write: Write) -> Reading[None]:
    while (yield from chars.peek()) in SPACE:
        write((yield from chars.take()))
