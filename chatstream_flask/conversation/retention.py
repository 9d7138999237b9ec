"""Limits on the size of one stored conversation."""

from __future__ import annotations

from bisect import bisect_left
from typing import TypeVar

from ..prompts import AbstractChatPrompt
from .record_json import to_json

Prompt = TypeVar("Prompt", bound=AbstractChatPrompt)


def trim_to_limits(prompt: Prompt, max_turns: int | None = None, max_bytes: int | None = None) -> Prompt:
    """Return the prompt, or a copy without its oldest turns if it exceeds the limits.

    The initial contents and the newest turn are never removed, even if they alone are too long.

    :param max_turns: turns of the visitor, including the newest one
    :param max_bytes: size of the prompt's JSON in UTF-8
    """
    num_droppable = prompt.num_droppable_turns
    num_dropped = 0 if max_turns is None else min(num_droppable, max(0, num_droppable + 1 - max_turns))
    if max_bytes is not None:
        num_dropped += bisect_left(
            range(num_dropped, num_droppable),
            True,
            key=lambda number: _num_bytes(prompt.without_oldest_turns(number)) <= max_bytes,
        )
    return prompt.without_oldest_turns(num_dropped) if num_dropped else prompt


def _num_bytes(prompt: AbstractChatPrompt) -> int:
    return len(to_json(prompt.to_dict()).encode())
