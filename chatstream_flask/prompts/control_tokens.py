"""Tokenization in which control tokens such as "</s>" or "<|im_end|>" in messages stay plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..errors import BadRequest

BREAK = "\ud800"  # a lone surrogate, which no text that can be tokenized contains
NEWLINE = "\n"


class ControlTokens:
    """Tokenizes a prompt so that only its format produces control tokens, never a message in it.

    `mark` inserts a break into each token that occurs in a message, or could occur together with the text
    next to it. `encode` cuts the prompt at the breaks that are inside a control token and tokenizes each
    piece; a prompt without such breaks is tokenized as a whole. The tokenizer itself is not changed, as
    threads share it.

    Control tokens are the tokenizer's special tokens, and those of its added tokens that the prompt or the
    chat template writes. White space and single characters do not count, nor do markers that the tokenizer
    encodes as plain text, such as "[INST]" of Llama 2: no tokenizer can tell where those come from.
    """

    def __init__(self, tokenizer: Any, wanted: Iterable[str] = ()) -> None:
        """Read the tokenizer's added tokens.

        :param wanted: texts that the application itself puts into messages; tokens in them stay tokens
        """
        self._tokenizer = tokenizer
        wanted = tuple(wanted)
        added = {
            token.content: (token_id, token.special)
            for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
            if _is_word(token.content) and not any(token.content in text for text in wanted)
        }
        self._ids = {content: token_id for content, (token_id, _) in added.items()}
        self._matcher = _matcher_of(tuple(sorted(added)))
        template = str(getattr(tokenizer, "chat_template", None) or "")
        named = {content for _, content in self._matcher.find(template)}
        for attribute in ("all_special_tokens", "chat_control_tokens"):
            named |= set(getattr(tokenizer, attribute, None) or ()) & added.keys()
        self._always = named | {content for content, (_, is_special) in added.items() if is_special}

    def mark(self, message: str) -> str:
        """Return the message with breaks; none is in the white space around it."""
        first, end = len(message) - len(message.lstrip()), len(message.rstrip())
        cuts = self._matcher.cuts(message) | self._matcher.cuts_at_end(message[:end])
        cuts |= self._matcher.cuts_at_end(message) | self._matcher.cuts_at_start(message, first)
        positions = [0, *sorted(cut for cut in cuts if first <= cut <= end), len(message)]
        return BREAK.join(message[start:stop] for start, stop in pairwise(positions))

    def occur_in(self, text: str) -> bool:
        """Return whether the text contains an added token."""
        return bool(self._matcher.find(text))

    def encode(self, marked: str, add_special_tokens: bool | None) -> list[int]:
        """Return the token ids of a prompt whose messages are marked.

        :param add_special_tokens: argument of `tokenizer.encode`; None is the tokenizer's default
        :raises BadRequest: the tokenizer turns other text, such as "＜/s＞", into a control token
        """
        kwargs = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        before, after = ([], []) if add_special_tokens is False else self._special_ends(kwargs)
        control = self._always | {token for _, token in self._matcher.find(marked)}
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
        cuts, position = {0, len(text)}, 0
        for part in parts[:-1]:
            position += len(part)
            if self._matcher.is_inside(text, position, control):
                cuts.add(position)
        return [text[start:stop] for start, stop in pairwise(sorted(cuts))] or [text]

    def _special_ends(self, kwargs: dict[str, bool]) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        bare, complete = self._encode("a"), list(self._tokenizer.encode("a", **kwargs))
        for start in range(len(complete) - len(bare) + 1):
            if complete[start : start + len(bare)] == bare:
                return complete[:start], complete[start + len(bare) :]
        return [], []

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_later(self, piece: str) -> list[int]:
        """Encode a piece that is not the first.

        It is encoded after a newline, as a tokenizer may add a space in front of the first word of a text.
        """
        newline, ids = self._encode(NEWLINE), self._encode(NEWLINE + piece)
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._encode(piece)

    def _check(self, ids: list[int], ends: list[int], pieces: list[str], control: set[str]) -> None:
        """Raise BadRequest if there are more control tokens in `ids` than the prompt contains."""
        unknown = getattr(self._tokenizer, "unk_token_id", None)  # any text may become the unknown token
        control_ids = {self._ids[token] for token in control} - {unknown}
        num_written = sum(token in control for piece in pieces for _, token in self._matcher.find(piece))
        num_allowed = num_written + sum(token_id in control_ids for token_id in ends)
        if sum(token_id in control_ids for token_id in ids) > num_allowed:
            raise BadRequest(
                "this conversation cannot be sent to the model: its tokenizer turns text of a message into a "
                "control token"
            )


class TokenMatcher:
    """Finds occurrences of some tokens in a text, whole ones and parts at its ends."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = frozenset(tokens)
        self._lengths = sorted({len(token) for token in tokens}, reverse=True)
        self._max_len = max(self._lengths, default=0)
        firsts = "".join(map(re.escape, sorted({token[0] for token in tokens})))
        self._first = re.compile(f"[{firsts}]" if firsts else "(?!)")
        self._prefixes = {token[:n] for token in tokens for n in range(1, len(token))}
        self._suffixes = {token[n:] for token in tokens for n in range(1, len(token))}

    def find(self, text: str) -> list[tuple[int, str]]:
        """Return each position where a token starts, with the longest token there."""
        found = []
        for at in (match.start() for match in self._first.finditer(text)):
            candidates = (text[at : at + length] for length in self._lengths)
            if longest := next((text for text in candidates if text in self._tokens), None):
                found.append((at, longest))
        return found

    def is_inside(self, text: str, position: int, tokens: set[str]) -> bool:
        """Return whether a position lies between two characters of one of `tokens`."""
        start = max(0, position - self._max_len + 1)
        found = self.find(text[start : position + self._max_len - 1])
        return any(at < position - start < at + len(token) for at, token in found if token in tokens)

    def cuts(self, text: str) -> set[int]:
        """Return a position inside each token of the text."""
        return {at + 1 for at, _ in self.find(text)}

    def cuts_at_end(self, text: str) -> set[int]:
        """Return a position inside each token that may start at the end of the text."""
        lengths = range(1, min(self._max_len, len(text) + 1))
        return {len(text) - n + 1 for n in lengths if text[len(text) - n :] in self._prefixes}

    def cuts_at_start(self, text: str, start: int) -> set[int]:
        """Return `start` if a token may end just behind it, else nothing."""
        return {start for n in range(1, self._max_len) if text[start : start + n] in self._suffixes}


@lru_cache(maxsize=32)
def _matcher_of(tokens: tuple[str, ...]) -> TokenMatcher:
    return TokenMatcher(tokens)


def _is_word(token: str) -> bool:
    return len(token) > 1 and not token.replace("▁", " ").isspace()
