"""CompletionsOnly: the prompt class of a base model that was given no chat template."""

from __future__ import annotations

from typing import Any

from ..errors import BadRequest
from ..prompts import AbstractChatPrompt


class CompletionsOnly(AbstractChatPrompt):
    """Prompt class that refuses every conversation; /v1/completions, which takes text, does not need it."""

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        raise BadRequest("this model has no chat template: use /v1/completions with plain text")
