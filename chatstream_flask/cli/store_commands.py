"""`flask chatstream init-db` and `flask chatstream purge`: the upkeep of conversations."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo

from ..chat.app_state import EXTENSION, store_of
from ..conversation import ConversationStore
from ..conversation.urls import make_store
from ..errors import ChatStreamError

STORE = click.option(
    "--store", "url", metavar="URL", help="As CHATSTREAM_STORE; the store of the app if left out."
)


@click.command("init-db")
@STORE
@click.pass_context
def init_db(context: click.Context, url: str | None) -> None:
    """Makes the tables for conversations, or makes those of an older version today's."""
    store: Any = _store(context, url)
    if not hasattr(store, "create_or_migrate"):
        click.echo(f"Nothing to do: a {type(store).__name__} has no tables.")
        return
    _try(store.create_or_migrate)
    click.echo("The tables for conversations are up to date.")


@click.command()
@STORE
@click.pass_context
def purge(context: click.Context, url: str | None) -> None:
    """Removes conversations whose time is over; for cron, once a day."""
    click.echo(f"Removed: {_try(_store(context, url).purge)}")


def _store(context: click.Context, url: str | None) -> ConversationStore:
    """With a URL no app is loaded, and so no model."""
    if url is not None:
        store: ConversationStore = _try(make_store, url, ttl_sec=1.0)  # nothing is saved here
        return store
    app = context.ensure_object(ScriptInfo).load_app()
    if EXTENSION not in app.extensions:
        raise click.ClickException("the app has no ChatStream; name the store: --store URL")
    return store_of(app)


def _try(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except ChatStreamError as error:
        raise click.ClickException(str(error)) from error
