"""Commands `serve` and `chat`, and the group of all commands.

They run as `flask chatstream serve` and as `python -m chatstream_flask serve`.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup

from ..conversation.file_sessions import make_session_folder
from ..conversation.folder_lock import FolderLock, lock_folder
from ..errors import NoChatTemplate
from ..extension import chat_streams_of
from ..http.request_check import LOOPBACK_HOSTS
from ..monitoring.log_format import set_up_logging
from ..serving.app import configured_app, create_app
from ..serving.limits import claim_stores
from ..serving.waitress_server import serve as serve_waitress
from ..settings import Settings
from .completions_only import CompletionsOnly
from .console_chat import ConsoleChat
from .console_words import words_of_locale
from .error_messages import errors_as_messages
from .found_app import choose_chat_stream, load_found_app, refuse_options
from .model_options import make_chat_stream, model_options, named_model
from .plan_command import plan
from .store_commands import init_db, purge

cli = AppGroup("chatstream", help="Chat with a language model under load control.")
cli.add_command(init_db)
cli.add_command(purge)
cli.add_command(plan)


@cli.command(with_appcontext=False)
@model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on."
)
@click.option(
    "--num-of-concurrent-executions",
    default=2,
    show_default=True,
    help="Most replies that are generated at once.",
)
@click.option(
    "--max-queue-size", default=5, show_default=True, help="Most requests that wait beyond those running."
)
@click.option(
    "--max-api-queue-size",
    default=128,
    show_default=True,
    help="Most requests of /v1 that wait, apart from those of the chat.",
)
@click.option("--num-of-generation-threads", type=int, help="Worker threads. [default: chosen for the model]")
@click.option(
    "--too-many-request-as-http-error",
    is_flag=True,
    help="Refuse requests with status 429 when the queue is full, instead of 200 with an error.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Host name that requests may name, beside those of this machine. May be repeated. "
    "[default: only this machine's if --host is 127.0.0.1, else any]",
)
@click.option("--store", metavar="URL", help="Conversation store. [default: files in ./instance]")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="CHATSTREAM_API_KEYS",
    show_envvar=True,
    help="Key that /v1 accepts, or sha256:<hex> of one. May be repeated.",
)
@click.option(
    "--model-alias",
    "model_aliases",
    metavar="NAME",
    multiple=True,
    help='Further name by which /v1 serves the model; "*" is any name. May be repeated.',
)
@click.option(
    "--cookie-secure", is_flag=True, help="Send cookies over HTTPS only. Set it behind a TLS proxy."
)
@click.option(
    "--locale",
    type=click.Choice(["en", "ja"]),
    default="en",
    show_default=True,
    help="Language of log messages.",
)
@click.option(
    "--log-format",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="Plain text, or one JSON object per line.",
)
@click.pass_context
@errors_as_messages()
def serve(context: click.Context, /, host: str, port: int, **options: Any) -> None:
    """Serve the chat under waitress.

    Serves the app that Flask finds, or a built-in one if there is none. Only --host and --port apply to an
    app that Flask finds.
    """
    set_up_logging(options["log_format"])
    app = load_found_app(context)
    if app is None:
        click.echo(f"Serving the built-in app with the model {named_model(**options)}", err=True)
        app = _own_app(host, **options)
    else:
        refuse_options(context, app, {"host", "port"})
        _check_api_keys(app, options["api_keys"])
        click.echo(_serving_line(app), err=True)
    set_up_logging(app.config["CHATSTREAM_LOG_FORMAT"])
    claim_stores(app)  # before the model is loaded
    for chat_stream in chat_streams_of(app):
        chat_stream.start_queue_worker()
    click.echo(f"Listening on http://{host}:{port}", err=True)
    try:
        serve_waitress(app, host, port)
    except (OSError, ValueError) as error:  # the port is in use, or the host does not exist
        raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from error


@cli.command(with_appcontext=False)
@click.option("--name", help="Which ChatStream, if the app has several.")
@model_options
@click.pass_context
@errors_as_messages()
def chat(context: click.Context, /, name: str | None, **options: Any) -> None:
    """Chat in this terminal.

    Uses the model of the app that Flask finds, or the one given by the options if there is no app. If stdin
    is not a terminal, each of its lines is a message.
    """
    app = load_found_app(context)
    if app is not None:
        refuse_options(context, app, {"name"})
        chat_stream = choose_chat_stream(app, name)
    elif name is not None:
        raise click.UsageError("--name chooses a ChatStream of an app, but no app is named: use --app")
    else:
        chat_stream = make_chat_stream(num_of_concurrent_executions=1, max_queue_size=0, **options)
    chat_stream.start_queue_worker()
    try:
        console = ConsoleChat(chat_stream, words_of_locale())
        console.run()
    finally:
        chat_stream.close()
    sys.exit(1 if console.num_failed else 0)


def _serving_line(app: Flask) -> str:
    models = " and ".join(chat_stream.source.model_name for chat_stream in chat_streams_of(app))
    return f"Serving the app {app.name!r} with the model {models}"


def _check_api_keys(app: Flask, from_environment: tuple[str, ...]) -> None:
    """Refuse keys of the environment that the app does not read: its /v1 would be open."""
    if from_environment and app.config["CHATSTREAM_API_KEYS"] is None:
        raise click.UsageError(
            f"the environment variable CHATSTREAM_API_KEYS does not apply to the app {app.name!r}: "
            "set app.config['CHATSTREAM_API_KEYS'], for example by app.config.from_prefixed_env()"
            " and FLASK_CHATSTREAM_API_KEYS"
        )


def _own_app(
    host: str,
    allowed_hosts: tuple[str, ...],
    api_keys: tuple[str, ...],
    model_aliases: tuple[str, ...],
    store: str | None,
    cookie_secure: bool,
    locale: str,
    log_format: str,
    **options: Any,
) -> Flask:
    is_bounded = allowed_hosts or host in LOOPBACK_HOSTS
    config = {
        "CHATSTREAM_ALLOWED_HOSTS": (*LOOPBACK_HOSTS, *allowed_hosts) if is_bounded else None,
        "CHATSTREAM_API_KEYS": api_keys or None,
        "CHATSTREAM_COOKIE_SECURE": cookie_secure,
        "CHATSTREAM_LOCALE": locale,
        "CHATSTREAM_LOG_FORMAT": log_format,
        "CHATSTREAM_MODEL_ALIASES": model_aliases,
        "CHATSTREAM_STORE": store,
    }
    lock = _lock_conversations(config)  # before the model is loaded; kept until the app has it, too
    try:
        chat_stream = make_chat_stream(**options)
    except NoChatTemplate as error:
        click.echo(f"Serving /v1/completions only: {error}", err=True)
        chat_stream = make_chat_stream(**options, chat_prompt_clazz=CompletionsOnly)
    app = create_app(chat_stream, config)
    claim_stores(app)
    del lock
    return app


def _lock_conversations(config: dict[str, Any]) -> FolderLock | None:
    """Lock the folder of the conversations for this process; return None if another store has them.

    :raises FolderInUse: another process uses it
    :raises ConfigError: it cannot be written, or a setting is not allowed
    """
    app = configured_app(config)
    settings = Settings.from_app(app)
    return None if settings.store else lock_folder(make_session_folder(app, settings.store_dir))
