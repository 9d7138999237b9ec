"""Calls in the context of a request, from any thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Request, copy_current_request_context, has_request_context, request

Result = TypeVar("Result")


class InRequest:
    """Calls functions in the context of the request in which it was made, so that `session` works.

    :param asked: that request, `flask.request` itself
    :param is_needed: False: functions are called without it
    """

    def __init__(self, asked: Request, *, is_needed: bool) -> None:
        self._request = asked
        self._call: Callable[..., Any] = copy_current_request_context(_call) if is_needed else _call

    def __call__(self, function: Callable[..., Result], *arguments: Any) -> Result:
        is_there = has_request_context() and request == self._request
        result: Result = _call(function, *arguments) if is_there else self._call(function, *arguments)
        return result


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
