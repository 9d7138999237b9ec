"""Functions of the app that the model may call."""

from __future__ import annotations

import functools
import inspect
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import msgspec

from ..config import check_int, check_number
from ..errors import ConfigError
from .reply_context import ReplyContext

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PARAMETER = re.compile(r"^\s*(?::param\s+)?(\w+)(?:\s*\([^)]*\))?:\s+(.*?)\s*$")  # of reST and Google
MAX_RESULT_LEN = 8192  # characters of a result that the model reads
MAX_RUNNING = 64  # calls of one function at once, with those that took too long
MAX_VISITORS = 10_000  # whose calls are remembered
MINUTE_SEC = 60.0


class WrongArguments(Exception):
    """The model has called a function with arguments that do not fit."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function of the app, with what holds for its calls."""

    function: Callable[..., Any]
    name: str
    description: str
    parameters: dict[str, Any]  # JSON schema of an object
    arguments: type[msgspec.Struct]  # by which they are checked and converted
    context_name: str | None  # parameter that gets the ReplyContext
    confirm: bool
    timeout_sec: float
    max_calls: int
    max_calls_per_minute: int | None
    _calls: dict[str, deque[float]] = field(default_factory=dict)  # times, by visitor
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_RUNNING))

    @property
    def definition(self) -> dict[str, Any]:
        """The tool as chat templates expect it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def bind(self, arguments: str, context: ReplyContext) -> Callable[[], Any]:
        """Return the call of the function with these arguments, which are a JSON object.

        :raises WrongArguments: they do not fit its signature
        """
        try:
            given = msgspec.json.decode(arguments or "{}")
            checked = msgspec.convert(given, self.arguments, strict=False)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise WrongArguments(str(error)) from error
        named = {name: getattr(checked, name) for name in self.arguments.__struct_fields__}
        if self.context_name is not None:
            named[self.context_name] = context
        return functools.wraps(self.function)(lambda: self.function(**named))

    def begin(self) -> bool:
        """Count a running call; return False if there are too many."""
        return self._running.acquire(blocking=False)

    def end(self) -> None:
        self._running.release()

    def may_call(self, visitor: str | None, now: float | None = None) -> bool:
        """Count a call of a visitor; return False beyond `max_calls_per_minute`."""
        if self.max_calls_per_minute is None:
            return True
        now = time.monotonic() if now is None else now
        with self._lock:
            times = self._calls.pop(visitor or "", deque())
            self._calls[visitor or ""] = times  # the one heard of last comes last
            while len(self._calls) > MAX_VISITORS:
                del self._calls[next(iter(self._calls))]
            while times and times[0] <= now - MINUTE_SEC:
                times.popleft()
            if len(times) >= self.max_calls_per_minute:
                return False
            times.append(now)
            return True


def make_tool(
    function: Callable[..., Any],
    *,
    confirm: bool,
    timeout_sec: float,
    max_calls: int,
    max_calls_per_minute: int | None,
) -> Tool:
    """Describe a function from its signature and docstring.

    :raises ConfigError: it lacks type hints or a docstring, or something is not allowed
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigError(f"a tool must be a function, not async, not {function!r}")
    name = function.__name__
    if not NAME.fullmatch(name):
        raise ConfigError(f"a tool's name must be 1 to 64 letters, digits, _ and -, not {name!r}")
    description, texts = _documented(function)
    if not description:
        raise ConfigError(f"the tool {name} needs a docstring: it tells the model what the function does")
    hints = get_type_hints(function, include_extras=True)
    context_name, fields = None, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"the tool {name} may have named parameters only, not {parameter}")
        if parameter.name not in hints:
            raise ConfigError(f"the parameter {parameter.name} of the tool {name} needs a type hint")
        kind = hints[parameter.name]
        if kind is ReplyContext:
            context_name = parameter.name
            continue
        fields.append(_field(parameter, kind, texts.get(parameter.name)))
    try:
        arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        parameters = _schema_of(arguments)
    except TypeError as error:
        raise ConfigError(f"the parameters of the tool {name} cannot be described: {error}") from error
    check_number("timeout_sec", timeout_sec, 0, 3600)
    check_int("max_calls", max_calls, 1, 100)
    if max_calls_per_minute is not None:
        check_int("max_calls_per_minute", max_calls_per_minute, 1, 10_000)
    return Tool(
        function=function,
        name=name,
        description=description,
        parameters=parameters,
        arguments=arguments,
        context_name=context_name,
        confirm=confirm,
        timeout_sec=timeout_sec,
        max_calls=max_calls,
        max_calls_per_minute=max_calls_per_minute,
    )


def text_of_result(result: Any) -> str:
    """Return what a function has returned as the model reads it: a text as it is, else JSON."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_RESULT_LEN else text[:MAX_RESULT_LEN] + "…"


def _field(parameter: inspect.Parameter, kind: Any, text: str | None) -> tuple[Any, ...]:
    if text:
        kind = Annotated[kind, msgspec.Meta(description=text)]
    if parameter.default is parameter.empty:
        return parameter.name, kind
    default = parameter.default
    if isinstance(default, (list, dict, set)):
        default = msgspec.field(default_factory=lambda: default.copy())
    return parameter.name, kind, default


def _schema_of(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = components.pop(arguments.__name__)
    del schema["title"]
    return schema | ({"$defs": components} if components else {})


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of a docstring, and the descriptions of parameters in it."""
    text = inspect.getdoc(function) or ""
    names = inspect.signature(function).parameters
    found = (PARAMETER.match(line) for line in text.splitlines())
    texts = {match[1]: match[2] for match in found if match and match[1] in names}
    return " ".join(text.split("\n\n")[0].split()), texts
