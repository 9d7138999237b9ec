"""Keeps what visitors and models write plain text, even "</s>" and "<|im_end|>"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..errors import BadRequest

BREAK = "\ud800"  # half a surrogate pair: no text that can be tokenized has one
NEWLINE = "\n"


class ControlTokens:
    """Tokenizes a prompt so that only the prompt itself writes control tokens, never a message in it.

    `mark` puts a break into each token that a message spells, or could spell together with what stands next
    to it. `encode` cuts the prompt at the breaks that are inside a control token, and tokenizes it piece by
    piece; without such a break it is tokenized as a whole. The tokenizer stays as it is: threads share it.

    Control tokens are the special tokens, and those added tokens that the prompt or the chat template writes.
    Not meant are white space and single characters, nor markers that the tokenizer takes for plain text, such
    as "[INST]" for Llama 2: no tokenizer can tell who wrote those.
    """

    def __init__(self, tokenizer: Any, wanted: Iterable[str] = ()) -> None:
        """:param wanted: what the application puts into messages; a token found there stays one"""
        self._tokenizer = tokenizer
        wanted = tuple(wanted)
        added = {
            token.content: (token_id, token.special)
            for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
            if _is_word(token.content) and not any(token.content in text for text in wanted)
        }
        self._ids = {content: token_id for content, (token_id, _) in added.items()}
        self._spelling = _spelling_of(tuple(sorted(added)))
        template = str(getattr(tokenizer, "chat_template", None) or "")
        named = {content for _, content in self._spelling.find(template)}
        for attribute in ("all_special_tokens", "chat_control_tokens"):
            named |= set(getattr(tokenizer, attribute, None) or ()) & added.keys()
        self._always = named | {content for content, (_, is_special) in added.items() if is_special}

    def mark(self, message: str) -> str:
        """The message with breaks, none of which is in the white space around it."""
        first, end = len(message) - len(message.lstrip()), len(message.rstrip())
        cuts = self._spelling.cuts(message) | self._spelling.cuts_at_end(message[:end])
        cuts |= self._spelling.cuts_at_end(message) | self._spelling.cuts_at_start(message, first)
        places = [0, *sorted(cut for cut in cuts if first <= cut <= end), len(message)]
        return BREAK.join(message[start:stop] for start, stop in pairwise(places))

    def is_spelled_in(self, text: str) -> bool:
        return bool(self._spelling.find(text))

    def encode(self, marked: str, add_special_tokens: bool | None) -> list[int]:
        """The ids of a prompt with marked messages.

        :param add_special_tokens: as `tokenizer.encode`; None is the tokenizer's own default
        :raises BadRequest: the tokenizer makes a control token of other text, such as "＜/s＞"
        """
        kwargs = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        before, after = ([], []) if add_special_tokens is False else self._frame(kwargs)
        control = self._always | {token for _, token in self._spelling.find(marked)}
        pieces = self._pieces(marked, control)
        if len(pieces) == 1:
            ids = list(self._tokenizer.encode(pieces[0], **kwargs))
        else:
            later = [token_id for piece in pieces[1:] for token_id in self._encode_later(piece)]
            ids = [*before, *self._encode(pieces[0]), *later, *after]
        self._check(ids, before + after, pieces, control)
        return ids

    def _pieces(self, marked: str, control: set[str]) -> list[str]:
        parts = marked.split(BREAK)
        text = "".join(parts)
        cuts, place = {0, len(text)}, 0
        for part in parts[:-1]:
            place += len(part)
            if self._spelling.is_inside(text, place, control):
                cuts.add(place)
        return [text[start:stop] for start, stop in pairwise(sorted(cuts))] or [text]

    def _frame(self, kwargs: dict[str, bool]) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        bare, framed = self._encode("a"), list(self._tokenizer.encode("a", **kwargs))
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return framed[:start], framed[start + len(bare) :]
        return [], []

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_later(self, piece: str) -> list[int]:
        """After a newline, where no tokenizer adds the space that it may put before a text."""
        newline, ids = self._encode(NEWLINE), self._encode(NEWLINE + piece)
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._encode(piece)

    def _check(self, ids: list[int], frame: list[int], pieces: list[str], control: set[str]) -> None:
        unknown = getattr(self._tokenizer, "unk_token_id", None)  # any text can be unknown
        control_ids = {self._ids[token] for token in control} - {unknown}
        num_written = sum(token in control for piece in pieces for _, token in self._spelling.find(piece))
        num_allowed = num_written + sum(token_id in control_ids for token_id in frame)
        if sum(token_id in control_ids for token_id in ids) > num_allowed:
            raise BadRequest(
                "this conversation cannot be given to the model: its tokenizer makes a control token of a "
                "message that spells none"
            )


class Spelling:
    """Where a text spells one of some tokens, in whole or at its edges."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = frozenset(tokens)
        self._lengths = sorted({len(token) for token in tokens}, reverse=True)
        self._max_len = max(self._lengths, default=0)
        firsts = "".join(map(re.escape, sorted({token[0] for token in tokens})))
        self._first = re.compile(f"[{firsts}]" if firsts else "(?!)")
        self._beginnings = {token[:n] for token in tokens for n in range(1, len(token))}
        self._endings = {token[n:] for token in tokens for n in range(1, len(token))}

    def find(self, text: str) -> list[tuple[int, str]]:
        """Each place where a token begins, and the longest one there."""
        found = []
        for at in (match.start() for match in self._first.finditer(text)):
            spelled = (text[at : at + length] for length in self._lengths)
            if longest := next((token for token in spelled if token in self._tokens), None):
                found.append((at, longest))
        return found

    def is_inside(self, text: str, place: int, tokens: set[str]) -> bool:
        """Between two characters of one of `tokens`."""
        start = max(0, place - self._max_len + 1)
        found = self.find(text[start : place + self._max_len - 1])
        return any(at < place - start < at + len(token) for at, token in found if token in tokens)

    def cuts(self, text: str) -> set[int]:
        return {at + 1 for at, _ in self.find(text)}

    def cuts_at_end(self, text: str) -> set[int]:
        """For tokens of which only the beginning is in the text."""
        lengths = range(1, min(self._max_len, len(text) + 1))
        return {len(text) - n + 1 for n in lengths if text[len(text) - n :] in self._beginnings}

    def cuts_at_start(self, text: str, start: int) -> set[int]:
        """For tokens of which only the end is in the text."""
        return {start for n in range(1, self._max_len) if text[start : start + n] in self._endings}


@lru_cache(maxsize=32)
def _spelling_of(tokens: tuple[str, ...]) -> Spelling:
    return Spelling(tokens)


def _is_word(token: str) -> bool:
    return len(token) > 1 and not token.replace("▁", " ").isspace()
