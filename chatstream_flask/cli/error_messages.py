"""Errors of the package as messages of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..errors import ChatStreamError


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """End the command with the error's text instead of a traceback; also usable as a decorator."""
    try:
        yield
    except ChatStreamError as error:
        raise click.ClickException(str(error)) from error
