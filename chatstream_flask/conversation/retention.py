"""How much of one conversation is kept."""

from __future__ import annotations

from bisect import bisect_left
from typing import TypeVar

from ..prompts import AbstractChatPrompt
from .record_json import to_json

Prompt = TypeVar("Prompt", bound=AbstractChatPrompt)


def trim_to_limits(prompt: Prompt, max_turns: int | None = None, max_bytes: int | None = None) -> Prompt:
    """The prompt, or a copy without as many of the visitor's oldest turns as are too many.

    What the application set up and the newest turn stay, even if they alone are too long.

    :param max_turns: the visitor's, the newest one among them
    :param max_bytes: of the prompt's JSON in UTF-8
    """
    most = prompt.num_droppable_turns
    num_dropped = 0 if max_turns is None else min(most, max(0, most + 1 - max_turns))
    if max_bytes is not None:
        num_dropped += bisect_left(
            range(num_dropped, most),
            True,
            key=lambda number: _num_bytes(prompt.without_oldest_turns(number)) <= max_bytes,
        )
    return prompt.without_oldest_turns(num_dropped) if num_dropped else prompt


def _num_bytes(prompt: AbstractChatPrompt) -> int:
    return len(to_json(prompt.to_dict()).encode())
