"""A name is public when an `__all__` has it; each of them has a docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

import chatstream_flask
from chatstream_flask import AbstractRequestHandler, ChatStream


def public_modules() -> Iterator[Any]:
    found = pkgutil.walk_packages(chatstream_flask.__path__, "chatstream_flask.")
    for name in ["chatstream_flask", *(module.name for module in found if module.ispkg)]:
        module = importlib.import_module(name)
        if hasattr(module, "__all__"):
            yield module


def is_documentable(value: Any) -> bool:
    """Return False for constants, which have comments."""
    return inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)


NAMES = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in public_modules()
    for name in module.__all__
    if is_documentable(getattr(module, name))
]
METHODS = [
    pytest.param(member, id=f"{clazz.__name__}.{name}")
    for clazz in (ChatStream, AbstractRequestHandler)
    for name, member in inspect.getmembers(clazz)
    if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
]


@pytest.mark.parametrize("value", [*NAMES, *METHODS])
def test_a_public_name_has_a_docstring(value: Any) -> None:
    assert inspect.getdoc(value)


def test_every_name_is_there_and_said_once() -> None:
    for module in public_modules():
        assert len(module.__all__) == len(set(module.__all__)), module
        assert all(hasattr(module, name) for name in module.__all__), module


def test_the_root_has_what_an_app_needs() -> None:
    assert chatstream_flask.__all__ == [
        "AbstractChatPrompt",
        "AbstractRequestHandler",
        "ChatPrompt",
        "ChatStream",
        "ReplyContext",
        "SamplingParams",
        "SimpleSessionRequestHandler",
        "__version__",
        "errors",
    ]
    assert chatstream_flask.__version__ == version("chatstream-flask")
