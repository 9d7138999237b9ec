"""Checks of values that come from outside, with messages that say what is allowed."""

from __future__ import annotations

import inspect
import reprlib
from dataclasses import fields
from typing import Any

from ..errors import ConfigError

MAX_SHOWN_NAMES = 5  # unknown names that an error message lists


def check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ConfigError if the value is not a whole number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, not {shown(value)}")
    if value < low or (high is not None and value > high):
        raise ConfigError(f"{name} must be {_range(low, high)}, not {shown(value)}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise ConfigError if the value is not a number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, not {shown(value)}")
    if not low <= value <= high:  # also catches NaN
        raise ConfigError(f"{name} must be {_range(low, high)}, not {shown(value)}")


def check_names(kind: str, given: dict[str, Any], allowed: type | set[str]) -> None:
    """Raise ConfigError with the allowed names if a name is unknown: it may be misspelt.

    :param kind: what the names are, for the message
    :param allowed: the names, or a dataclass with these fields
    """
    names = allowed if isinstance(allowed, set) else {f.name for f in fields(allowed)}
    if unknown := [name for name in given if name not in names]:
        shown_names = ", ".join(_shown_name(name) for name in unknown[:MAX_SHOWN_NAMES])
        rest = f" and {len(unknown) - MAX_SHOWN_NAMES} more" if len(unknown) > MAX_SHOWN_NAMES else ""
        raise ConfigError(f"unknown {kind} {shown_names}{rest}; allowed: {', '.join(sorted(names))}")


def check_callback(name: str, value: Any, *arguments: str) -> None:
    """Raise ConfigError if a value cannot be called with these arguments, or is a coroutine function."""
    wanted = f"{name} must be a function that can be called as {name}({', '.join(arguments)})"
    if not callable(value):
        raise ConfigError(f"{wanted}, not {shown(value)}")
    if inspect.iscoroutinefunction(value):
        raise ConfigError(f"{wanted}; an async function would never be awaited")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some functions written in C do not tell it
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"{wanted}: {error}") from error


def shown(value: Any) -> str:
    """Return a short repr of any value, for messages: values may come from clients and be huge."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not convert integers of thousands of digits
        return f"a {type(value).__name__} with very many digits"


def _shown_name(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() and len(name) <= 60 else shown(name)


def _range(low: float, high: float | None) -> str:
    return f"at least {low}" if high is None else f"between {low} and {high}"
