"""Finding tool calls in the text of a reply."""

from __future__ import annotations

import re
import secrets
import string
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ..deltas import Delta, merged
from .call_writer import CallWriter
from .characters import SPACE, BrokenText, Characters, Reading, num_uncertain
from .json_calls import Reader
from .open_code import OpenCode
from .syntax import ToolSyntax

SYNTAX_CHARS = SPACE + ",;]}`"  # may follow the arguments of a call


class ToolCallParser:
    """Incremental parser of a reply with tool calls; how the text is cut does not change the message.

    Text that only looks like a call is content, and so is a call that breaks off, or that is quoted as code
    in Markdown. White space before a call is dropped.
    """

    reads_special_tokens = False

    def __init__(
        self,
        syntax: ToolSyntax,
        tools: Sequence[dict[str, Any]],
        *,
        streams: bool,
        kept_tokens: Mapping[int, str] | None = None,
    ) -> None:
        """Start at the beginning of a reply.

        :param tools: the tools that the model was shown, in OpenAI's format
        :param streams: return the pieces of a call before it is complete: if it breaks off, its text follows
            as content; otherwise nothing of such a call but its text is returned
        :param kept_tokens: the special tokens of the syntax
        """
        self.kept_tokens = kept_tokens or {}
        self._syntax = syntax
        self._deltas: list[Delta] = []
        self._calls = CallWriter(
            self._deltas,
            tools,
            make_id=_short_id if syntax.has_short_ids else _long_id,
            streams=streams,
        )
        self._starts = re.compile("|".join({re.escape(opener[0]) for opener in syntax.openers}) or "(?!)")
        self._is_start = syntax.bare is not None
        self._space = ""  # white space at the end of the content
        self._held = ""  # with which an opener may begin
        self._code = OpenCode()
        self._chars = Characters()
        self._reading: Reading[None] | None = None
        self._raw = ""  # text of the call that is being read

    @property
    def has_called(self) -> bool:
        return self._calls.num_complete > 0

    def push(self, text: str) -> list[Delta]:
        """Return what the text adds to the message."""
        at = 0
        while at < len(text):
            if self._reading is not None:
                at += self._read(text[at])
            elif not self._held and not self._is_start:
                found = self._starts.search(text, at)
                until = found.start() if found else len(text)
                self._show(text[at:until])
                at = until
                if found:
                    self._scan(text[at])
                    at += 1
            else:
                self._scan(text[at])
                at += 1
        return self._take()

    def finish(self) -> list[Delta]:
        """Return what was held back, at the end of the reply."""
        if self._reading is not None:
            self._end_reading(is_broken=self._calls.is_open or not self._is_syntax(self._raw))
        self._show(self._held)
        if self._space and not self.has_called:
            self._deltas.append({"content": self._space})
        return self._take()

    def _take(self) -> list[Delta]:
        self._calls.tell()
        deltas = merged(self._deltas)
        self._deltas.clear()
        return deltas

    def _show(self, text: str) -> None:
        """Add text to the content; white space at its end waits for what follows."""
        self._code.push(text)
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._deltas.append({"content": shown})

    def _scan(self, char: str) -> None:
        """Take a character that is in no call."""
        if self._is_start and not char.isspace():
            self._is_start = False
            if char == "{" and self._syntax.bare is not None:
                self._start_reading(self._syntax.bare, char)
                return
        self._held += char
        if (reader := self._syntax.openers.get(self._held)) and not self._code.is_open:
            opener, self._held = self._held, ""
            self._start_reading(reader, opener)
            return
        certain = len(self._held) - num_uncertain(self._held, self._syntax.openers)
        self._show(self._held[:certain])
        self._held = self._held[certain:]

    def _start_reading(self, reader: Reader, opener: str) -> None:
        self._raw = opener
        self._chars = Characters()
        self._reading = reader(self._chars, self._calls, opener)
        next(self._reading)

    def _read(self, char: str) -> bool:
        """Send a character to the reader; return whether it has taken it."""
        assert self._reading is not None
        num_complete = self._calls.num_complete
        is_broken, is_over = False, True
        try:
            self._reading.send(char)
            is_over = False
        except StopIteration:
            pass
        except BrokenText:
            is_broken = True
        is_taken = not self._chars.ahead
        self._raw += char if is_taken else ""
        if self._calls.num_complete > num_complete:
            self._raw = self._space = ""
        if is_over:
            self._end_reading(is_broken=is_broken)
        return is_taken

    def _end_reading(self, *, is_broken: bool) -> None:
        raw, self._raw, self._reading = self._raw, "", None
        if not is_broken:
            return
        self._calls.abandon()
        certain = len(raw) - num_uncertain(raw[1:], self._syntax.openers)
        self._show(raw[:certain])
        self._held = raw[certain:]

    def _is_syntax(self, text: str) -> bool:
        """Return whether a text behind a call is only what ends it, or the beginning of that."""
        closers = self._syntax.closers
        for closer in closers:
            text = text.replace(closer, "")
        rest = text.strip(SYNTAX_CHARS)
        return not rest or any(closer.startswith(rest) for closer in closers)


def _long_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _short_id() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))
