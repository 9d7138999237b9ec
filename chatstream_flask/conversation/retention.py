"""Limits on what is stored: the size of one conversation, and their number and bytes together."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from ..prompts import AbstractChatPrompt
from ..prompts.chat_history import split_turns
from .record_json import to_json

logger = logging.getLogger("chatstream_flask")

MAX_CHAR_BYTES = 12  # of a character in JSON: two escapes such as \ud83d
MAX_OTHER_BYTES = 200  # of a message in JSON: its id, its role and the names of its fields

Prompt = TypeVar("Prompt", bound=AbstractChatPrompt)


def trim_to_limits(prompt: Prompt, max_turns: int | None = None, max_bytes: int | None = None) -> Prompt:
    """Return the prompt, or a copy without its oldest turns if it exceeds the limits.

    The initial contents and the newest turn are never removed, even if they alone are too long.

    :param max_turns: turns of the visitor, including the newest one
    :param max_bytes: size of the prompt's JSON in UTF-8
    """
    num_droppable = prompt.num_droppable_turns
    num_dropped = 0 if max_turns is None else min(num_droppable, max(0, num_droppable + 1 - max_turns))
    if num_dropped:
        prompt = prompt.without_oldest_turns(num_dropped)
    if max_bytes is None or _surely_fits(prompt, max_bytes):
        return prompt
    while num_exceeding := _num_exceeding_turns(prompt, max_bytes):
        prompt = prompt.without_oldest_turns(num_exceeding)
    return prompt


def log_exceeding(num_removed: int) -> None:
    """Log, if there were any, that so many entries had to go before they expired."""
    if num_removed:
        logger.warning(
            "CHATSTREAM_STORE_MAX_CONVERSATIONS or CHATSTREAM_STORE_MAX_BYTES was exceeded: the %d least "
            "recently used sessions and conversations were removed before they expired",
            num_removed,
        )


def _surely_fits(prompt: AbstractChatPrompt, max_bytes: int) -> bool:
    """Return True for a prompt that is short by a quick estimate; most are, and need no exact size."""
    if type(prompt).to_dict is not AbstractChatPrompt.to_dict:
        return False
    contents = prompt.get_contents()
    num_chars = len(prompt.system or "") + sum(
        len(content.message or "") + len(content.reasoning or "") + len(str([content.sources, content.steps]))
        for content in contents
    )
    return MAX_CHAR_BYTES * num_chars + MAX_OTHER_BYTES * (len(contents) + 10) <= max_bytes


def _num_exceeding_turns(prompt: AbstractChatPrompt, max_bytes: int) -> int:
    """Return how many turns exceed the size; exact unless the prompt's class changes its stored form."""
    exceeding = _num_bytes(prompt.to_dict()) - max_bytes
    num_turns = 0
    for turn in split_turns(prompt.get_contents()[prompt.num_initial :])[:-1]:
        if exceeding <= 0:
            break
        exceeding -= sum(_num_bytes(content.to_dict()) + len(",") for content in turn)
        num_turns += 1
    return num_turns


def _num_bytes(record: dict[str, Any]) -> int:
    return len(to_json(record).encode())
