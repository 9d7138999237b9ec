"""Comparison of a tokenizer's ids with the rows of the model's input embedding."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..config import shown
from ..errors import BadRequest, UnsupportedModel
from ..prompts.message_prompt import encode_messages

# Its prompt has every token that a template writes into all prompts of a chat.
PLAIN_CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "a"},
]


def num_embeddings(model: Any) -> int | None:
    """Return the number of rows of the model's input embedding; None if the model does not tell it."""
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    num = getattr(embedding, "num_embeddings", None)
    return num if isinstance(num, int) else None


def check_vocabulary(tokenizer: Any, num_rows: int) -> None:
    """Refuse a tokenizer with ids beyond the embedding that occur in ordinary prompts.

    Those are the ids of its own vocabulary, which any text may contain, and of all tokens that it or its chat
    template writes into every prompt. Other added tokens may be beyond the embedding: many tokenizers have
    got a padding token that way, and it occurs only in a text prompt that spells it out. Such a prompt is
    refused by `check_ids`.

    :raises UnsupportedModel: the model has no embedding for one of these ids
    """
    added = tokenizer.get_added_vocab()
    unknown = {
        token_id: token
        for token, token_id in tokenizer.get_vocab().items()
        if token_id >= num_rows and token not in added
    }
    for token_id in _ids_of_every_prompt(tokenizer):
        if token_id >= num_rows:
            unknown[token_id] = tokenizer.decode([token_id])
    if unknown:
        first = min(unknown)
        raise UnsupportedModel(
            f"the tokenizer has {len(unknown)} token(s) that the model has no embedding for, such as "
            f"{shown(unknown[first])} with id {first}: the model has ids 0 to {num_rows - 1}; "
            "load the tokenizer that belongs to it, or resize_token_embeddings after adding tokens"
        )


def check_ids(token_ids: Iterable[int], num_rows: int, tokenizer: Any) -> None:
    """Refuse a prompt with an id that the model has no embedding for.

    :raises BadRequest: with the token
    """
    highest = max(token_ids, default=0)
    if highest >= num_rows:
        token = f"{shown(tokenizer.decode([highest]))} (token id {highest})"
        if highest >= len(tokenizer):
            token = f"token id {highest}"
        raise BadRequest(
            f"the prompt contains {token}, which this model does not know: "
            f"it has token ids 0 to {num_rows - 1}"
        )


def _ids_of_every_prompt(tokenizer: Any) -> set[int]:
    ids = set(tokenizer.encode("a"))
    with suppress(BadRequest):  # there is no template, or it wants other messages
        ids.update(encode_messages(tokenizer, PLAIN_CHAT))
    return ids
