"""Prompt formats given as a few strings."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import BadRequest, ConfigError
from .abstract_chat_prompt import AbstractChatPrompt, Replacements
from .chat_content import ChatContent
from .prompt_settings import PromptTTL


class TextPrompt(AbstractChatPrompt):
    """Prompt in which subclasses set format strings and need no code.

    Formats may contain {message}, {system}, and the role names {requester} and {responder}.
    """

    requester_name: ClassVar[str] = ""
    responder_name: ClassVar[str] = ""
    system_text: ClassVar[str] = ""  # system text of a new conversation
    system_format: ClassVar[str] = "{system}\n\n"  # start of the prompt, if there is a system text
    requester_format: ClassVar[str] = "{message}"  # with {system}, the first one contains the system text
    child_format: ClassVar[str] = ""  # appended to a message that comes with a child message
    reply_prefix: ClassVar[str] = ""  # start of each reply; the model continues after the last one
    reply_format: ClassVar[str] = "{message}"  # rest of an earlier reply
    strips_replies: ClassVar[bool] = True  # whether white space around earlier replies is removed
    stop_strs: ClassVar[tuple[str, ...]] = ()
    stops_at_requester: ClassVar[bool] = False  # whether the requester's prefix ends a reply
    ttl: ClassVar[PromptTTL] = PromptTTL.MULTI_TURN
    add_special_tokens: ClassVar[bool | None] = None  # unless the caller says; None: the tokenizer's default
    replacements_when_input: ClassVar[Replacements] = ()
    replacements_when_output: ClassVar[Replacements] = ()

    def __init__(self) -> None:
        super().__init__()
        self.set_system(self.system_text)
        self.set_requester(self.requester_name)
        self.set_responder(self.responder_name)
        self.set_prefix_as_stop_str_enabled(self.stops_at_requester)
        self.set_prompt_ttl(self.ttl)

    def render(self, contents: list[ChatContent]) -> str:
        names = {"requester": self.requester, "responder": self.responder}
        system = self.replace_string(self.system, self.replacements_when_input)
        system = self.system_format.format(system=system, **names) if system else ""
        parts = [] if "{system}" in self.requester_format else [system]
        for content in contents:
            if content.is_requester:
                parts.append(self.requester_format.format(message=content.message, system=system, **names))
                system = ""
                continue
            parts.append(self.reply_prefix.format(**names))
            if content.message:
                parts.append(self.reply_format.format(message=self._reply(content.message), **names))
        return "".join(parts)

    def _reply(self, message: str) -> str:
        if self.strips_replies:
            message = message.strip()
        return self.replace_string(message, self.replacements_when_input)

    def to_token_ids(self, tokenizer: Any, add_special_tokens: bool | None = None) -> list[int]:
        if add_special_tokens is None and self.chat_mode:
            add_special_tokens = self.add_special_tokens
        return super().to_token_ids(tokenizer, add_special_tokens)

    def add_requester_msg(self, message: str, child_message: str | None = None) -> None:
        """Append a message of the requester.

        :param child_message: text that the message is about, such as Alpaca's "input"; appended to the
            message in `child_format`
        :raises ConfigError: there is a child message, but `child_format` is not set
        :raises BadRequest: a message is not a string
        """
        if child_message is not None:
            if not self.child_format:
                raise ConfigError(f"{type(self).__name__} does not support child messages: set child_format")
            if not isinstance(message, str) or not isinstance(child_message, str):
                raise BadRequest("a message and its child message must be strings")
            message += self.child_format.format(message=child_message)
        super().add_requester_msg(message)

    def get_stop_strs(self) -> list[str]:
        return list(self.stop_strs)

    def get_replacement_when_input(self) -> Replacements:
        return self.replacements_when_input

    def get_replacement_when_output(self) -> Replacements:
        return self.replacements_when_output
