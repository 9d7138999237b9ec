"""Log-probabilities of tokens in the format of the API."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..engine.reply_text import TokenLogprob


class Tokens(Protocol):
    """What a model's source tells of single tokens."""

    def token_text(self, token_id: int) -> str: ...
    def token_bytes(self, token_id: int) -> bytes | None: ...


class TextOffsets:
    """Counts at which character of a text each of its tokens begins.

    Tokens that are parts of one character begin where the character does.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def next(self, token_id: int) -> int:
        """Return the offset of the next token."""
        offset = self._num_chars
        token = self._tokens.token_bytes(token_id)
        token = self._tokens.token_text(token_id).encode() if token is None else token
        self._num_chars += len(self._decoder.decode(token))
        return offset


def chat_logprobs(logprobs: Sequence[TokenLogprob], tokens: Tokens) -> dict[str, Any]:
    """Return the log-probabilities of a chat completion."""

    def shown(token_id: int, logprob: float) -> dict[str, Any]:
        token = tokens.token_bytes(token_id)
        text = tokens.token_text(token_id)
        return {"token": text, "logprob": logprob, "bytes": None if token is None else list(token)}

    content = [
        shown(entry.token_id, entry.logprob) | {"top_logprobs": [shown(*pair) for pair in entry.top]}
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    logprobs: Sequence[TokenLogprob], name: Callable[[int], str], offsets: TextOffsets
) -> dict[str, Any]:
    """Return the log-probabilities of a text completion.

    :param name: returns how a token is named
    :param offsets: has counted the tokens before these
    """
    return {
        "tokens": [name(entry.token_id) for entry in logprobs],
        "token_logprobs": [entry.logprob for entry in logprobs],
        "top_logprobs": [{name(i): logprob for i, logprob in entry.top} for entry in logprobs],
        "text_offset": [offsets.next(entry.token_id) for entry in logprobs],
    }
