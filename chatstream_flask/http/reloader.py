"""Flask's reloader, which loads an app twice: in a process that watches its files and in one that serves."""

from __future__ import annotations

import click
from flask.cli import run_command
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader


def only_watches_files() -> bool:
    """Return whether `flask run` loads the app in the process that watches its files and serves nothing."""
    context = click.get_current_context(silent=True)
    if context is None or context.command is not run_command or is_running_from_reloader():
        return False
    reload = context.params["reload"]
    return get_debug_flag() if reload is None else bool(reload)
