"""Arguments of the chat template that callers may set: above all, whether and how long a model reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..config import shown
from ..errors import ConfigError

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS = get_args(ReasoningEffort)
MAX_KWARGS = 16
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
TEXT = re.compile(r"[\w .,:;/+-]{0,256}")  # can write no control token, such as <|end|> or [INST]
RESERVED = {  # arguments of apply_chat_template, and what it gives to templates itself
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
}


@dataclass(frozen=True, kw_only=True)
class TemplateParams:
    """How a prompt is rendered.

    :param enable_thinking: whether the model reasons before it answers; None: as its chat template does
    :param reasoning_effort: how much, one of EFFORTS, for templates that know it; "none" is not at all
    :param chat_template_kwargs: further arguments of the chat template: strings of letters, digits and simple
        punctuation, numbers, true, false or null
    :raises ConfigError: a value is not allowed
    """

    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.enable_thinking is None or isinstance(self.enable_thinking, bool)):
            raise ConfigError(
                f"enable_thinking must be true, false or null, not {shown(self.enable_thinking)}"
            )
        if self.reasoning_effort is not None and self.reasoning_effort not in EFFORTS:
            allowed = ", ".join(map(repr, EFFORTS))
            raise ConfigError(
                f"reasoning_effort must be one of {allowed}, not {shown(self.reasoning_effort)}"
            )
        if not isinstance(self.chat_template_kwargs, Mapping) or len(self.chat_template_kwargs) > MAX_KWARGS:
            raise ConfigError(f"chat_template_kwargs must be an object of at most {MAX_KWARGS} fields")
        for name, value in self.chat_template_kwargs.items():
            _check(name, value)

    @property
    def is_thinking_off(self) -> bool:
        if self.enable_thinking is None:
            return self.reasoning_effort == "none"
        return not self.enable_thinking

    def to_kwargs(self) -> dict[str, Any]:
        """Return the arguments for a chat template, under the names that the families use."""
        kwargs: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            kwargs["reasoning_effort"] = self.reasoning_effort
        if self.is_thinking_off:
            kwargs |= {"enable_thinking": False, "thinking": False, "thinking_budget": 0}
        elif self.enable_thinking or self.reasoning_effort is not None:
            kwargs |= {"enable_thinking": True, "thinking": True}
        return kwargs | dict(self.chat_template_kwargs)


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED or name.endswith("_token"):
        raise ConfigError(f"chat_template_kwargs cannot set {shown(name)}")
    if isinstance(value, str) and not TEXT.fullmatch(value):
        raise ConfigError(
            f"chat_template_kwargs[{name!r}] may hold letters, digits, spaces and . , : ; / + - only"
        )
    if not (value is None or isinstance(value, (bool, int, float, str))):
        raise ConfigError(
            f"chat_template_kwargs[{name!r}] must be a string, number, boolean or null, not {shown(value)}"
        )
