"""App that Flask finds, as for `flask run`, and the options that do not apply to it."""

from __future__ import annotations

import os
from collections.abc import Collection

import click
from click.core import ParameterSource
from flask import Flask
from flask.cli import ScriptInfo

from ..extension import ChatStream, chat_streams_of


def load_found_app(context: click.Context) -> Flask | None:
    """Load the app that Flask finds; None if none is named and the folder has no app.py or wsgi.py.

    :raises NoAppException: the app cannot be loaded (Flask's own error)
    :raises click.ClickException: the app has no ChatStream
    """
    info = context.find_object(ScriptInfo)
    if info is None or not names_an_app(info):
        return None
    app = info.load_app()
    if not chat_streams_of(app):
        raise click.ClickException(
            f"the app {app.name!r} has no ChatStream: call ChatStream(...).init_app(app) where it is "
            f"created. `python -m chatstream_flask {context.info_name}` runs without an app"
        )
    return app


def choose_chat_stream(app: Flask, name: str | None) -> ChatStream:
    """Return the ChatStream of that name; if none is named, the only one there is.

    :raises click.UsageError: there is none of that name, or there are several to choose from
    """
    found = chat_streams_of(app)
    chosen = [chat_stream for chat_stream in found if name in (None, chat_stream.name)]
    if len(chosen) != 1:
        problem = "has several ChatStreams" if name is None else f"has no ChatStream named {name!r}"
        names = ", ".join(sorted(chat_stream.name for chat_stream in found))
        raise click.UsageError(f"the app {app.name!r} {problem}: choose one with --name: {names}")
    return chosen[0]


def refuse_options(context: click.Context, app: Flask, allowed: Collection[str]) -> None:
    """Raise a usage error if options were given that only the app itself can set.

    :param allowed: names of the parameters that apply to any app
    """
    if refused := [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in allowed
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]:
        raise click.UsageError(
            f"{', '.join(refused)}: the app {app.name!r} has a ChatStream of its own: set the "
            "arguments of that ChatStream, or CHATSTREAM_* in the app's config"
        )


def names_an_app(info: ScriptInfo) -> bool:
    """Return whether Flask has been told an app, or would find one in the current folder."""
    is_named = info.create_app is not None or bool(info.app_import_path)
    return is_named or any(os.path.exists(name) for name in ("wsgi.py", "app.py"))
