"""The functions that an app has registered for its replies."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, overload

from werkzeug.exceptions import HTTPException

from ..config import check_callback
from ..engine.engine_stats import EngineStats
from ..errors import ChatStreamError, ConfigError, HookFailed
from ..prompts import AbstractChatPrompt, ChatPrompt
from .reply_context import ReplyContext
from .text_units import UNIT_NAMES, UnitName
from .tools import Tool, make_tool

logger = logging.getLogger("chatstream_flask")

BeforeReply = Callable[[ReplyContext], object]
OnText = Callable[[ReplyContext, str], str]
AfterReply = Callable[[ReplyContext], object]
Before = TypeVar("Before", bound=BeforeReply)
Text = TypeVar("Text", bound=OnText)
After = TypeVar("After", bound=AfterReply)
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


class Hooks:
    """The hooks of one ChatStream, in the order in which they were registered.

    :param stats: gets the time of each call
    """

    def __init__(self, stats: EngineStats) -> None:
        self._stats = stats
        self.before_reply: list[BeforeReply] = []
        self.on_text: list[tuple[OnText, UnitName]] = []
        self.after_reply: list[AfterReply] = []
        self.tools: dict[str, Tool] = {}  # by name

    def __bool__(self) -> bool:
        return bool(self.before_reply or self.on_text or self.after_reply or self.tools)

    def begin(self, reply: ReplyContext) -> None:
        """Call `before_reply`, in the view.

        :raises ChatStreamError: a hook refused or failed
        """
        for hook in self.before_reply:
            self.run("before_reply", hook, reply)

    def run(self, kind: str, hook: Callable[..., Result], *arguments: Any) -> Result:
        """Call a hook and measure its time.

        :param kind: "before_reply", "on_text", "after_reply" or "tool"
        :raises HookFailed: it raised something else than errors for the client
        """
        began = time.perf_counter()
        is_failed = True
        try:
            result = hook(*arguments)
            is_failed = False
            return result
        except (ChatStreamError, HTTPException):
            is_failed = False
            raise
        except Exception as error:
            name = getattr(hook, "__qualname__", repr(hook))
            logger.exception("the %s hook %s failed", kind, name)
            raise HookFailed("a function of this app failed; try again later") from error
        finally:
            self._stats.record_hook(kind, time.perf_counter() - began, is_failed=is_failed)


class HookDecorators:
    """Decorators that register the functions of an app."""

    hooks: Hooks
    chat_prompt_clazz: type[AbstractChatPrompt]

    def before_reply(self, hook: Before) -> Before:
        """Register a function `hook(reply)` that is called before each reply, in its request.

        It gets a ReplyContext, on which it may refuse the request, add context and sources, and change
        sampling parameters. The request has its place in the queue by then.
        """
        check_callback("before_reply", hook, "reply")
        self.hooks.before_reply.append(hook)
        return hook

    @overload
    def on_text(self, hook: Text) -> Text: ...

    @overload
    def on_text(self, *, unit: UnitName) -> Callable[[Text], Text]: ...

    def on_text(self, hook: Any = None, *, unit: UnitName = "sentence") -> Any:
        """Register a function `hook(reply, text)` that returns what clients may get in place of the text.

        It is called with one whole unit after the other, of the reasoning and of the answer, as the reply
        goes on: so nothing that stands within a unit can slip through between two calls. What it returns is
        what is streamed, stored and logged.

        :param unit: "sentence" (ends with a full stop, a question or an exclamation mark, or a line break),
            "word" (ends with white space), or "reply" (the whole text, which clients then get at its end)
        :raises ConfigError: there is no such unit
        """
        if unit not in UNIT_NAMES:
            raise ConfigError(f"unit must be one of {', '.join(UNIT_NAMES)}, not {unit!r}")

        def register(hook: Text) -> Text:
            check_callback("on_text", hook, "reply", "text")
            self.hooks.on_text.append((_returning_text(hook), unit))
            return hook

        return register if hook is None else register(hook)

    def after_reply(self, hook: After) -> After:
        """Register a function `hook(reply)` that is called once at the end of each accepted reply.

        The ReplyContext has the text, the token counts and the reason of the end by then. The reply has been
        stored; its client is told of the end afterwards.
        """
        check_callback("after_reply", hook, "reply")
        self.hooks.after_reply.append(hook)
        return hook

    @overload
    def tool(self, function: Function) -> Function: ...

    @overload
    def tool(
        self,
        *,
        confirm: bool = False,
        timeout_sec: float = 10.0,
        max_calls: int = 4,
        max_calls_per_minute: int | None = None,
    ) -> Callable[[Function], Function]: ...

    def tool(
        self,
        function: Any = None,
        *,
        confirm: bool = False,
        timeout_sec: float = 10.0,
        max_calls: int = 4,
        max_calls_per_minute: int | None = None,
    ) -> Any:
        """Let the model call a function of the app, on the server, in the context of the visitor's request.

        The model is told its name, the first paragraph of its docstring, and its parameters by their type
        hints, with what the docstring says about each (`:param city: name of a city`). Arguments that do not
        fit the hints never reach the function. A parameter with the hint ReplyContext gets the reply. What
        the function returns, a string or what JSON can hold, is what the model reads.

        :param confirm: ask the visitor before each call; below `/v1`, where nobody can be asked, the model is
            not told of the function
        :param timeout_sec: seconds after which the model is told that the call failed
        :param max_calls: calls in one reply
        :param max_calls_per_minute: calls of one visitor, in this process; None: no limit
        :raises ConfigError: the function cannot be described, or the prompt class uses no chat template
        """
        if not issubclass(self.chat_prompt_clazz, ChatPrompt):
            raise ConfigError("tools need a chat_prompt_clazz that is ChatPrompt or derived from it")

        def register(function: Function) -> Function:
            tool = make_tool(
                function,
                confirm=confirm,
                timeout_sec=timeout_sec,
                max_calls=max_calls,
                max_calls_per_minute=max_calls_per_minute,
            )
            if tool.name in self.hooks.tools:
                raise ConfigError(f"there already is a tool named {tool.name}")
            self.hooks.tools[tool.name] = tool
            return function

        return register if function is None else register(function)


def _returning_text(hook: OnText) -> OnText:
    @functools.wraps(hook)
    def checked(reply: ReplyContext, text: str) -> str:
        changed = hook(reply, text)
        if not isinstance(changed, str):
            raise TypeError(f"on_text must return a string, not {type(changed).__name__}")
        return changed

    return checked
