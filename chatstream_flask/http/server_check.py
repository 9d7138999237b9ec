"""Checks of the WSGI server: one that would lose or block replies is refused, with the setting it needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

from ..config import EngineConfig
from ..engine.engine import Engine
from ..errors import ConfigError

logger = logging.getLogger("chatstream_flask")

CONF = "gunicorn -c python:chatstream_flask.serving.gunicorn_conf"
SPARE_THREADS = 8  # threads a server needs beyond those that replies and their readers hold
SERVERS = ("gunicorn.socket", "werkzeug.socket", "uwsgi.version", "mod_wsgi.version")  # in an environ


def check_gunicorn(cfg: Any) -> None:
    """Check gunicorn's settings.

    :param cfg: gunicorn's own object, in the master or in the worker
    :raises ConfigError: a setting would lose replies or load the model more than once
    """
    if cfg.workers > 1:
        raise ConfigError(
            f"gunicorn has workers={cfg.workers}, and each would load the model and have a queue of its own: "
            "set workers=1 and use threads; for more GPUs run one server for each, behind nginx"
        )
    if cfg.max_requests > 0:
        raise ConfigError(
            f"gunicorn's max_requests={cfg.max_requests} would end the worker again and again, which "
            "cuts running replies and loads the model each time: remove it"
        )
    if not _has_threads(cfg):
        raise ConfigError(
            f"gunicorn's worker class {cfg.worker_class_str} runs all requests in one thread, which the "
            f"model would block: use gthread with threads, or start `{CONF}`"
        )
    if cfg.reload:
        logger.warning("gunicorn's reload loads the model again after each change: turn it off in production")


def check_gunicorn_that_loads_us(configs: Sequence[EngineConfig]) -> None:
    """Check the settings of the gunicorn that is importing the app; do nothing if there is none.

    :param configs: of all engines of the app
    """
    cfg = _gunicorn_on_the_stack()
    if cfg is None:
        return
    check_gunicorn(cfg)
    if getattr(cfg.worker_class, "is_sized_by_app", False):
        return
    num_threads = num_server_threads(configs)
    if cfg.threads < num_threads:
        logger.warning(
            "gunicorn has threads=%d, but up to %d running and waiting replies hold one each, and so do "
            "their further readers: set threads=%d, or start `%s`",
            *(cfg.threads, sum(config.num_all_places for config in configs), num_threads, CONF),
        )


def num_server_threads(configs: Iterable[EngineConfig]) -> int:
    """Return how many threads a server needs for these engines, so that requests of other kinds find one."""
    return sum(map(num_reply_threads, configs)) + SPARE_THREADS


def num_reply_threads(config: EngineConfig) -> int:
    """Return how many server threads replies, running and waiting, and their further readers may hold."""
    return config.num_all_places + config.max_extra_readers


def check_forked(engine: Engine) -> None:
    """Check that the engine's threads run in this process.

    :raises ConfigError: they were started before the server forked this worker
    """
    if engine.is_started_elsewhere:
        raise ConfigError(
            "the generation threads were started before the server forked its worker, which does not have "
            "them: call start_queue_worker() in the worker, or turn preload_app off"
        )


class ServerCheck:
    """Checks the server once, at the first chat request: only the WSGI environ says how it runs the app."""

    def __init__(self, engine: Engine, configs_of_app: Callable[[], Sequence[EngineConfig]]) -> None:
        """Make a check for one engine.

        :param configs_of_app: returns those of all engines of the current app
        """
        self._engine = engine
        self._configs_of_app = configs_of_app
        self._is_passed = False

    def __call__(self, environ: dict[str, Any]) -> None:
        """Check the server that made this environ, unless one has passed already.

        :raises ConfigError: this server would lose or block replies
        """
        if not self._is_passed:
            self._check(environ)
            self._is_passed = True

    def _check(self, environ: dict[str, Any]) -> None:
        configs = self._configs_of_app()
        num_threads = num_server_threads(configs)
        check_forked(self._engine)
        if environ.get("wsgi.multiprocess"):
            raise ConfigError(
                "this server runs the app in several processes, and each would load the model and have a "
                "queue of its own: set one process with threads"
            )
        if not environ.get("wsgi.multithread") and any(name in environ for name in SERVERS):
            raise ConfigError(
                "this server answers one request at a time, so that a reply would stop all others: give it "
                f"at least {num_threads} threads, or start `flask chatstream serve`"
            )
        if channel := getattr(environ.get("waitress.client_disconnected"), "__self__", None):
            _check_waitress(channel.adj, num_threads, sum(config.num_all_places for config in configs))
            if not getattr(channel, "drains", False):
                logger.warning(
                    "this waitress does not let replies finish when it is stopped: start the app with "
                    "chatstream_flask.serving.waitress_server.serve() or `flask chatstream serve`, which do"
                )


def _check_waitress(adj: Any, num_threads: int, num_chats: int) -> None:
    wanted = [
        *([f"threads={num_threads}"] if adj.threads < num_threads else []),
        *(["channel_request_lookahead=1"] if adj.channel_request_lookahead < 1 else []),
        *([] if adj.asyncore_use_poll else ["asyncore_use_poll=True"]),
    ]
    if wanted:
        logger.warning(
            "waitress needs %s for up to %d running and waiting replies; `flask chatstream serve` sets all",
            *(", ".join(wanted), num_chats),
        )


def _has_threads(cfg: Any) -> bool:
    from gunicorn.workers.gthread import ThreadWorker  # gunicorn is running

    return issubclass(cfg.worker_class, ThreadWorker)


def _gunicorn_on_the_stack() -> Any:
    """Return the settings of the gunicorn that is importing the app, found on the call stack."""
    if "gunicorn.config" not in sys.modules:
        return None
    config_class = sys.modules["gunicorn.config"].Config
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        cfg = getattr(frame.f_locals.get("self"), "cfg", None)
        if isinstance(cfg, config_class):
            return cfg
        frame = frame.f_back
    return None
