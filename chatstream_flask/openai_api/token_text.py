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
    def decode(self, token_ids: Sequence[int]) -> str: ...


class TextOffsets:
    """Counts at which character of a text each of its tokens begins.

    Tokens that are parts of one character begin where the character does.
    """

    def __init__(self, tokens: Tokens, *, begins_text: bool = False) -> None:
        """Start to count.

        :param begins_text: the first token is that of a prompt, whose space decoders drop
        """
        self._tokens = tokens
        self._begins_text = begins_text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def next(self, token_id: int) -> int:
        """Return the offset of the next token."""
        offset = self._num_chars
        if self._begins_text:
            self._begins_text = False
            alone, within = self._tokens.decode([token_id]), self._tokens.token_text(token_id)
            self._num_chars -= len(within) - len(alone)
        token = self._tokens.token_bytes(token_id)
        token = self._tokens.token_text(token_id).encode() if token is None else token
        self._num_chars += len(self._decoder.decode(token))
        return offset


def chat_logprobs(logprobs: Sequence[TokenLogprob], tokens: Tokens) -> dict[str, Any]:
    """Return the log-probabilities of a chat completion."""

    def shown(token_id: int, logprob: float | None) -> dict[str, Any]:
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
        "top_logprobs": [None if entry.logprob is None else _by_name(entry, name) for entry in logprobs],
        "text_offset": [offsets.next(entry.token_id) for entry in logprobs],
    }


def _by_name(entry: TokenLogprob, name: Callable[[int], str]) -> dict[str, float]:
    """Return the most likely tokens; of several with the same name, the most likely one."""
    named: dict[str, float] = {}
    for token_id, logprob in entry.top:
        named.setdefault(name(token_id), logprob)
    return named


def prompt_logprobs(logprobs: Sequence[TokenLogprob], tokens: Tokens) -> list[dict[str, Any] | None]:
    """Return those of a prompt in vLLM's format: by token id, that of the prompt first."""

    def shown(logprob: float, rank: int | None, token_id: int) -> dict[str, Any]:
        return {"logprob": logprob, "rank": rank, "decoded_token": tokens.token_text(token_id)}

    described: list[dict[str, Any] | None] = []
    for entry in logprobs:
        if entry.logprob is None:
            described.append(None)
            continue
        of_token = {str(entry.token_id): shown(entry.logprob, entry.rank, entry.token_id)}
        for rank, (token_id, logprob) in enumerate(entry.top, start=1):
            of_token.setdefault(str(token_id), shown(logprob, rank, token_id))
        described.append(of_token)
    return described
