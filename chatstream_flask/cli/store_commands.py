"""Commands `init-db` and `purge`: maintenance of the conversation store."""

from __future__ import annotations

from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from ..chat import app_state
from ..chat.app_state import EXTENSION, store_of
from ..conversation import ConversationStore
from ..conversation.file_sessions import session_folder
from ..conversation.json_file_cache import JSONFileCache
from ..conversation.urls import make_store
from ..serving.app import configured_app
from ..settings import Settings
from .error_messages import errors_as_messages
from .found_app import names_an_app

STORE = click.option(
    "--store", "url", metavar="URL", help="URL as in CHATSTREAM_STORE. [default: the app's store]"
)


@click.command("init-db")
@STORE
@click.pass_context
@errors_as_messages()
def init_db(context: click.Context, url: str | None) -> None:
    """Create the tables for conversations, or migrate older ones."""
    store: Any = _store(context, url)
    if not hasattr(store, "create_or_migrate"):
        click.echo(f"Nothing to do: a {type(store).__name__} has no tables.")
        return
    store.create_or_migrate()
    click.echo("The tables for conversations are up to date.")


@click.command()
@STORE
@click.pass_context
@errors_as_messages()
def purge(context: click.Context, url: str | None) -> None:
    """Delete expired conversations and sessions.

    The server does so by itself every few minutes. This is for one that is not running, or that is neither
    `serve` nor gunicorn with the worker of this package.

    Without an app, `serve`'s own store and the session files in ./instance are purged. With an app, --store
    names the only store that is purged, and the app is not loaded.
    """
    click.echo(f"Removed: {_purge(context, url)}")


def _purge(context: click.Context, url: str | None) -> int:
    if not _is_own_app(context):
        return _store(context, url).purge() if url is not None else app_state.purge(*_found_app(context))
    app, settings = _own_app(url)
    num_removed = 0 if settings.store is None else _make_store(settings.store).purge()
    folder = session_folder(app, settings.store_dir)
    return num_removed + (JSONFileCache(folder).purge() if folder.is_dir() else 0)


def _store(context: click.Context, url: str | None) -> ConversationStore:
    """Return the store of the URL, without loading the app and its model, or else the app's store."""
    if url is not None:
        return _make_store(url)
    if not _is_own_app(context):
        return _found_app(context)[1]
    _, settings = _own_app(url)
    if settings.store is None:
        raise click.ClickException("no app is named, and FLASK_CHATSTREAM_STORE is not set: use --store URL")
    return _make_store(settings.store)


def _make_store(url: str) -> ConversationStore:
    return make_store(url, ttl_sec=1.0)  # unused, as nothing is saved


def _is_own_app(context: click.Context) -> bool:
    """Return whether no app is named, as for `serve` with its built-in app."""
    info = context.find_object(ScriptInfo)
    return info is None or not names_an_app(info)


def _found_app(context: click.Context) -> tuple[Flask, ConversationStore]:
    app = context.ensure_object(ScriptInfo).load_app()
    if EXTENSION not in app.extensions:
        raise click.ClickException("the app has no ChatStream: use --store URL")
    return app, store_of(app)


def _own_app(url: str | None) -> tuple[Flask, Settings]:
    app = configured_app({} if url is None else {"CHATSTREAM_STORE": url})
    return app, Settings.from_app(app)
