"""Log-probabilities of tokens in the format of the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..engine.reply_text import TokenLogprob

TokenText = Callable[[int], str]
UNFINISHED = "\ufffd"  # in the text of a token that is only a part of a character


def chat_logprobs(logprobs: Sequence[TokenLogprob], text_of: TokenText) -> dict[str, Any]:
    def shown(token_id: int, logprob: float) -> dict[str, Any]:
        text = text_of(token_id)
        is_whole = UNFINISHED not in text
        return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if is_whole else None}

    content = [
        shown(entry.token_id, entry.logprob) | {"top_logprobs": [shown(*pair) for pair in entry.top]}
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(logprobs: Sequence[TokenLogprob], text_of: TokenText, offset: int) -> dict[str, Any]:
    """Return the log-probabilities of a text completion.

    :param offset: characters of the tokens before these
    """
    tokens = [text_of(entry.token_id) for entry in logprobs]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [entry.logprob for entry in logprobs],
        "top_logprobs": [{text_of(i): logprob for i, logprob in entry.top} for entry in logprobs],
        "text_offset": offsets,
    }
