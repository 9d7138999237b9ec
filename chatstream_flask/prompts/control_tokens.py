"""Tokenization in which control tokens such as "</s>" or "<|im_end|>" in messages stay plain text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from ..errors import BadRequest
from .added_tokens import added_tokens_of

BREAK = "\ud800"  # a lone surrogate, which no text that can be tokenized contains
EDGE = "\ud801"  # a break at what may be a part of a token
NEWLINE = "\n"

Mark = Callable[[str], str]  # returns the text of a message with breaks
Render = Callable[[Mark], str]  # returns the prompt, with each text of a message passed through `Mark`
Span = tuple[int, int]  # a token that a break stands for, from and to; empty: the break is inside of one


class ControlTokens:
    """Tokenizes a prompt so that only its format produces control tokens, never a message in it.

    The prompt is rendered again with breaks in the messages, which show where their control tokens stand:

    - Inside each control token: "<⏎s>". Where the text between the breaks is the original one, this is exact.
    - Where it is not, the template looks for tokens, such as "</think>" in a reply. Two other renderings have
      the break between two copies of each token, "<s>⏎<s>", and before it, "⏎<s>". There, templates find the
      token, and can divide the text at it. A token is a message's if all renderings with the original text
      say so.

    If no rendering has the original text, the first one is used, without its breaks: whatever the template
    wrote there is text. The prompt is cut inside the tokens found, and the pieces are tokenized one by one.
    The tokenizer itself is not changed, as threads share it.

    Control tokens are the tokenizer's special tokens, and those of its added tokens that the prompt or the
    chat template writes. White space and single characters do not count, nor do markers that the tokenizer
    encodes as plain text, such as "[INST]" of Llama 2: no tokenizer can tell where those come from.
    """

    def __init__(self, tokenizer: Any, wanted: Iterable[str] = ()) -> None:
        """Read the tokenizer's added tokens, if it has not been done before.

        :param wanted: texts that the application itself puts into messages; tokens in them stay tokens
        """
        self._tokenizer = tokenizer
        self._added = added_tokens_of(tokenizer, wanted)
        self._finder = self._added.finder

    def occur_in(self, text: str) -> bool:
        """Return whether the text contains an added token."""
        return self._finder.occurs_in(text)

    def break_inside(self, text: str) -> str:
        """Return the text with a break in each token, and in what may be a part of one at the text's ends.

        None is in the white space around the text, which templates remove.
        """
        first, end = len(text) - len(text.lstrip()), len(text.rstrip())
        inner = {at + 1 for at, _ in self._finder.find(text) if first <= at + 1 <= end}
        return _joined(text, inner | self._edges(text), BREAK)

    def break_between(self, text: str) -> str:
        """Return the text with each token doubled around a break."""
        return self._with_edges(text, lambda part: self._finder.pattern.sub(rf"\g<0>{BREAK}\g<0>", part))

    def break_before(self, text: str) -> str:
        """Return the text with a break before each token and the white space before it."""

        def change(part: str) -> str:
            pieces, position = [], 0
            for match in self._finder.pattern.finditer(part):
                gap = part[position : match.start()]
                word = gap.rstrip()
                pieces += [word, BREAK, gap[len(word) :], match[0]]
                position = match.end()
            return "".join([*pieces, part[position:]])

        return self._with_edges(text, change)

    def encode(
        self, plain: str, texts: Iterable[str], render: Render, add_special_tokens: bool | None
    ) -> list[int]:
        """Return the token ids of a prompt.

        :param plain: the prompt as it is without breaks
        :param texts: the texts in it that are not the format's
        :param render: is called only if one of `texts` contains a token or a part of one at its ends
        :param add_special_tokens: argument of `tokenizer.encode`; None is the tokenizer's default
        :raises BadRequest: the tokenizer turns other text, such as "＜/s＞", into a control token
        """
        theirs: dict[int, str] = {}
        if any(self.break_inside(text) != text for text in texts):
            plain, theirs = self._tokens_of_messages(plain, render)
        kwargs = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        before, after = ([], []) if add_special_tokens is False else self._special_ends(kwargs)
        ours = [token for at, token in self._finder.find(plain) if at not in theirs]
        control = self._added.control | set(ours)
        cuts = [at + 1 for at, token in sorted(theirs.items()) if token in control]
        if cuts:
            pieces = [plain[start:stop] for start, stop in pairwise([0, *cuts, len(plain)])]
            ids = [*before, *self._encode_pieces(pieces), *after]
        else:
            ids = list(self._tokenizer.encode(plain, **kwargs))
        self._check(ids, before + after, ours, control)
        return ids

    def _edges(self, text: str) -> set[int]:
        """Return positions inside what may be parts of tokens at the ends of a text."""
        first, end = len(text) - len(text.lstrip()), len(text.rstrip())
        finder = self._finder
        cuts = finder.cuts_at_end(text[:end]) | finder.cuts_at_end(text) | finder.cuts_at_start(text, first)
        return {cut for cut in cuts if first <= cut <= end}

    def _with_edges(self, text: str, change: Mark) -> str:
        return EDGE.join(map(change, _joined(text, self._edges(text), EDGE).split(EDGE)))

    def _tokens_of_messages(self, plain: str, render: Render) -> tuple[str, dict[int, str]]:
        """Return the text to be encoded, and the tokens in it that messages wrote, by their position."""
        any_token = self._finder.pattern.pattern
        text, theirs = self._read(render(self.break_inside), re.compile(BREAK))
        if text == plain:
            return text, theirs
        between = re.compile(f"({any_token}){BREAK}\\1|[{BREAK}{EDGE}]")
        before = re.compile(f"{BREAK}(\\s*(?:{any_token}))|[{BREAK}{EDGE}]")
        readings = [
            self._read(render(self.break_between), between),
            self._read(render(self.break_before), before),
        ]
        if exact := [tokens for other, tokens in readings if other == plain]:
            common = set.intersection(*map(set, exact))
            return plain, {at: exact[0][at] for at in common}
        return text, theirs

    def _read(self, marked: str, pattern: re.Pattern[str]) -> tuple[str, dict[int, str]]:
        """Return a prompt without its breaks, and the tokens at the breaks by their position."""
        parts, spans, position, length = [], [], 0, 0
        for match in pattern.finditer(marked):
            token = (match[1] or "") if pattern.groups else ""
            parts += [marked[position : match.start()], token]
            length += match.start() - position
            spans.append((length, length + len(token)))
            length += len(token)
            position = match.end()
        text = "".join([*parts, marked[position:]])
        return text, dict(_overlapping(self._finder.find(text), spans))

    def _special_ends(self, kwargs: dict[str, bool]) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        bare, complete = self._encode("a"), list(self._tokenizer.encode("a", **kwargs))
        for start in range(len(complete) - len(bare) + 1):
            if complete[start : start + len(bare)] == bare:
                return complete[:start], complete[start + len(bare) :]
        return [], []

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_pieces(self, pieces: list[str]) -> list[int]:
        """Encode the pieces of one text; equal ones once, and all in one call where the tokenizer has it.

        A piece that is not the first is encoded after a newline, as a tokenizer may add a space in front of
        the first word of a text.
        """
        later = list(dict.fromkeys(pieces[1:]))
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        texts = [NEWLINE + piece for piece in later]
        if backend is not None:
            encoded = [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=False)]
        else:
            encoded = [self._encode(text) for text in texts]
        newline = self._encode(NEWLINE)
        ids_of = {
            piece: ids[len(newline) :] if ids[: len(newline)] == newline else self._encode(piece)
            for piece, ids in zip(later, encoded, strict=True)
        }
        return [*self._encode(pieces[0]), *(token_id for piece in pieces[1:] for token_id in ids_of[piece])]

    def _check(self, ids: list[int], ends: list[int], ours: list[str], control: set[str]) -> None:
        """Raise BadRequest if there are more control tokens in `ids` than the format writes."""
        unknown = getattr(self._tokenizer, "unk_token_id", None)  # any text may become the unknown token
        control_ids = {self._added.ids[token] for token in control} - {unknown}
        num_allowed = len(ours) + sum(token_id in control_ids for token_id in ends)
        if sum(token_id in control_ids for token_id in ids) > num_allowed:
            raise BadRequest(
                "this conversation cannot be sent to the model: its tokenizer turns text of a message into a "
                "control token"
            )


def _joined(text: str, cuts: set[int], separator: str) -> str:
    return separator.join(text[start:stop] for start, stop in pairwise([0, *sorted(cuts), len(text)]))


def _overlapping(found: list[tuple[int, str]], spans: list[Span]) -> Iterator[tuple[int, str]]:
    """Yield the tokens that have more than an edge in common with a span, or contain it."""
    starts = [start for start, _ in spans]
    longest = max((stop - start for start, stop in spans), default=0)
    for at, token in found:
        near = range(bisect_left(starts, at - longest), bisect_left(starts, at + len(token)))
        if any(spans[k][1] > at for k in near):
            yield at, token
