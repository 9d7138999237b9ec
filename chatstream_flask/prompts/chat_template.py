"""Rendering of messages through the chat template of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from ..errors import NoChatTemplate
from .message_forms import FORMS, Form, Message, in_forms
from .template_probe import Probe

TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError)  # raised by templates that refuse their messages


class NotWritten(ValueError):
    """The template renders the messages, but leaves a part of them out."""


def check_has_template(tokenizer: Any) -> None:
    """Raise NoChatTemplate if the tokenizer has none."""
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise NoChatTemplate(
            f"the tokenizer {name!r} has no chat template: give one with chat_template (--chat-template), "
            "or set chat_prompt_clazz to a class that writes the prompts of this model"
        )


def apply_chat_template(tokenizer: Any, messages: Sequence[Message], **kwargs: Any) -> str:
    """Return the text of a prompt that has the text of every message.

    It is what `tokenizer.apply_chat_template` returns, where that has all of it. Otherwise the messages are
    given to the template in other `FORMS`, until nothing is left out. Reasoning (`reasoning_content`) may be:
    most templates show the newest only.

    :param kwargs: arguments of the template, such as `add_generation_prompt`
    :raises TemplateError, TypeError, ValueError: the template refuses these messages in every form, or
        leaves a part of them out
    """
    probe = Probe(messages)

    def failure(forms: Sequence[Form]) -> _Failure:
        try:
            return _Failure(lacks=probe.lacks(_apply(tokenizer, in_forms(probe.messages, forms), kwargs)))
        except TEMPLATE_ERRORS as error:
            return _Failure(error=error)

    used: list[Form] = []
    first = left = failure(used)
    for form in [*FORMS, *FORMS]:  # twice, as one fault may hide another
        if not left:
            break
        if (other := failure([*used, form])).is_better_than(left):
            left = other
            used.append(form)
    if left:
        raise first.error or NotWritten(f"{first.lacks[0]} would be left out")
    return _apply(tokenizer, in_forms(messages, used), kwargs)


@dataclass
class _Failure:
    """What is wrong with a prompt; false if nothing is."""

    lacks: list[str] = field(default_factory=list)
    error: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self.lacks) or self.error is not None

    def is_better_than(self, other: _Failure) -> bool:
        """Return whether less is wrong; a template that refuses for another reason has read further."""
        if self.error is None or other.error is None:
            return (self.error is not None, len(self.lacks)) < (other.error is not None, len(other.lacks))
        return str(self.error) != str(other.error)


def _apply(tokenizer: Any, messages: Sequence[Message], kwargs: dict[str, Any]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **kwargs))
