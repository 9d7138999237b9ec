"""turn_end: the control token by which a chat template ends a reply."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .chat_template import TEMPLATE_ERRORS, apply_chat_template

REPLY = "Yes"
TURN = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": REPLY}]


def missing_turn_end(tokenizer: Any, end_ids: Collection[int]) -> int | None:
    """Return the token that the template writes after a reply; None if what it writes has an end token.

    A model writes this token when it has finished. If it ends nothing, the model goes on and answers
    itself. None as well if the template writes no control token there.

    :param end_ids: tokens that end a reply; empty where replies are meant to have their full length
    """
    if not end_ids or not getattr(tokenizer, "chat_template", None):
        return None
    try:
        text = apply_chat_template(tokenizer, TURN)
    except TEMPLATE_ERRORS:  # it wants other messages
        return None
    _, reply, after = text.rpartition(REPLY)
    added = set(tokenizer.get_added_vocab().values())
    ids = [i for i in tokenizer.encode(after, add_special_tokens=False) if i in added] if reply else []
    return None if not ids or set(ids) & set(end_ids) else int(ids[0])
