"""Commands `init-db` and `purge`: maintenance of the conversation store."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo

from ..chat.app_state import EXTENSION, store_of
from ..conversation import ConversationStore
from ..conversation.urls import make_store
from .error_messages import errors_as_messages

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
    """Delete expired conversations. Run it once a day, for example by cron."""
    click.echo(f"Removed: {_store(context, url).purge()}")


def _store(context: click.Context, url: str | None) -> ConversationStore:
    """Return the store of the URL, without loading the app and its model, or else the app's store."""
    if url is not None:
        return make_store(url, ttl_sec=1.0)  # unused, as nothing is saved
    app = context.ensure_object(ScriptInfo).load_app()
    if EXTENSION not in app.extensions:
        raise click.ClickException("the app has no ChatStream: use --store URL")
    return store_of(app)
