"""Base class of prompts: a conversation that can be rendered as text and as token ids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import BadRequest, StoreUnavailable
from .chat_content import ChatContent, RoleType
from .chat_history import ChatHistory, split_turns
from .control_tokens import ControlTokens, Mark
from .prompt_settings import PromptSettings, PromptTTL
from .replacer import Replacer

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1  # version of the dict that to_dict returns
SETTINGS = ("system", "requester", "responder", "chat_mode", "prefix_as_stop_str", "num_initial")
Replacements = Sequence[tuple[str, str]]


class AbstractChatPrompt(PromptSettings, ChatHistory):
    """A conversation and the format in which a family of models reads it.

    Subclasses override `render`, and other methods of the first section as needed.
    """

    sanitize_special_tokens: ClassVar[bool] = True  # encode "</s>" in a message as plain text

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap `build_initial_prompt`, so that the contents it adds are counted in `num_initial`."""
        super().__init_subclass__(**kwargs)
        if "build_initial_prompt" in cls.__dict__:
            setattr(cls, "build_initial_prompt", _counting_initial(cls.build_initial_prompt))  # noqa: B010

    def __repr__(self) -> str:
        return f"<{type(self).__name__} turns={self.get_turn()} initial={self.num_initial}>"

    # -- to override --------------------------------------------------------------------------------

    def render(self, contents: list[ChatContent]) -> str:
        """Return the text of the prompt.

        The last of `contents` is the reply that the model is asked for; its message is None.
        """
        raise NotImplementedError(f"{type(self).__name__} must override render() or create_prompt()")

    def build_initial_prompt(self, chat_prompt: AbstractChatPrompt) -> None:
        """Set up a new conversation: its system text, role names and examples."""

    def get_stop_strs(self) -> list[str]:
        """Return strings that end a reply."""
        return []

    def get_requester_prefix(self) -> str:
        """Return what stands before a requester's message in the prompt."""
        return f"{self.requester}:" if self.requester else ""

    def get_replacement_when_input(self) -> Replacements | None:
        """Return (old, new) pairs that are replaced in what visitors write."""
        return None

    def get_replacement_when_output(self) -> Replacements | None:
        """Return (old, new) pairs that are replaced in replies."""
        return None

    # -- rendering ----------------------------------------------------------------------------------

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        """Return the text of the prompt; outside chat mode, the newest requester message.

        :param opts: options of `get_contents`
        """
        if not self.chat_mode:
            return self.get_requester_last_msg() or ""
        return self.render(self.get_contents_to_render(opts))

    def to_token_ids(self, tokenizer: Any, add_special_tokens: bool | None = None) -> list[int]:
        """Return the token ids of the prompt.

        :param add_special_tokens: argument of `tokenizer.encode`; None is the tokenizer's default
        :raises BadRequest: the tokenizer turns other text of a message into a control token
        """
        opts = {"tokenizer": tokenizer}
        if not self.sanitize_special_tokens:
            kwargs = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return list(tokenizer.encode(self.create_prompt(opts), **kwargs))
        control = ControlTokens(tokenizer, [new for _, new in self.get_replacement_when_input() or ()])
        texts = [self.system, *(text for c in self._contents for text in (c.message, c.reasoning) if text)]
        return control.encode(
            self.create_prompt(opts),
            texts,
            lambda mark: self._with_texts(mark).create_prompt(opts),
            add_special_tokens,
        )

    def with_contents(self, contents: list[ChatContent], num_initial: int | None = None) -> Self:
        """Return a copy with other contents."""
        clone = copy(self)
        clone._contents = contents
        clone.num_initial = self.num_initial if num_initial is None else num_initial
        return clone

    def with_text_before_newest(self, text: str) -> Self:
        """Return a copy in which a text stands before the requester's newest message; `self` if it is ""."""
        contents = self.get_contents() if text else []
        for i in range(len(contents) - 1, -1, -1):
            if contents[i].is_requester:
                contents[i] = replace(contents[i], message=f"{text}\n\n{contents[i].message or ''}")
                return self.with_contents(contents)
        return self

    def _with_texts(self, change: Mark) -> Self:
        """Return a copy with each text changed."""
        contents = [
            replace(c, message=c.message and change(c.message), reasoning=c.reasoning and change(c.reasoning))
            for c in self._contents
        ]
        changed = self.with_contents(contents)
        changed.system = change(self.system)
        return changed

    def get_contents_to_render(self, opts: dict[str, Any] | None = None) -> list[ChatContent]:
        """Return the contents that the model is shown.

        Earlier turns without a reply are left out, as a model that sees empty replies tends to give one.
        """
        contents = self.get_contents(opts)
        turns = split_turns(contents[self.num_initial :])
        if self.prompt_ttl is PromptTTL.SINGLE_TURN:
            turns = turns[-1:]
        *older, newest = split_turns(contents[: self.num_initial]) + turns or [[]]
        answered = [turn for turn in older if turn[-1].message and not turn[-1].is_requester]
        return [content for turn in [*answered, newest] for content in turn]

    def get_final_stop_strs(self) -> list[str]:
        """Return all strings that end a reply, including the requester's prefix where that is enabled."""
        if not self.chat_mode:
            return []
        prefix = self.get_requester_prefix() if self.prefix_as_stop_str else ""
        return [*self.get_stop_strs(), *([prefix] if prefix else [])]

    # -- messages and roles -------------------------------------------------------------------------

    def add_requester_msg(self, message: str) -> None:
        """Append a message of the requester, after the replacements for input.

        :raises BadRequest: the message is not a string
        """
        if not isinstance(message, str):
            raise BadRequest(f"a message must be a string, not {type(message).__name__}")
        super().add_requester_msg(self.replace_string(message, self.get_replacement_when_input()))

    def is_requester_role(self, role: RoleType) -> bool:
        return role is RoleType.REQUESTER

    def get_role_name(self, role: RoleType) -> str:
        """Return the name that the prompt shows for a role."""
        return self.requester if self.is_requester_role(role) else self.responder

    def replace_string(self, text: str, replacements: Replacements | None) -> str:
        """Replace all pairs in one pass from left to right; replaced text is not searched again."""
        replacer = Replacer(replacements or ())
        return replacer.push(text) + replacer.finish()

    # -- stored form --------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the conversation as a dict of JSON's types."""
        return {
            "v": FORMAT,
            **{name: getattr(self, name) for name in SETTINGS},
            "prompt_ttl": self.prompt_ttl.value,
            "contents": [content.to_dict() for content in self._contents],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the conversation of a dict that `to_dict` returned.

        :raises StoreUnavailable: the data is damaged, or another version of this package wrote it
        """
        if not isinstance(data, dict):
            raise StoreUnavailable(f"a stored conversation is damaged: a {type(data).__name__}, not a dict")
        if data.get("v") != FORMAT:
            raise StoreUnavailable(
                f"a stored conversation has format {data.get('v')!r}, but this version of chatstream_flask "
                f"reads {FORMAT}: use the version that wrote it, or clear the conversation"
            )
        prompt = cls()
        try:
            for name in SETTINGS:
                setattr(prompt, name, data[name])
            prompt.prompt_ttl = PromptTTL(data["prompt_ttl"])
            prompt._contents = [ChatContent.from_dict(content) for content in data["contents"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreUnavailable(f"a stored conversation is damaged: {error!r}") from error
        return prompt


def _counting_initial(build: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @functools.wraps(build)
    def build_initial_prompt(self: AbstractChatPrompt, chat_prompt: AbstractChatPrompt) -> None:
        build(self, chat_prompt)
        chat_prompt.num_initial = len(chat_prompt._contents)

    return build_initial_prompt
