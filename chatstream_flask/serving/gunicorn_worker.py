"""gunicorn's threaded worker with the numbers of the app that it loads, and with a drain before its end."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import FrameType

from ..http.server_check import check_forked
from ..monitoring.log_format import set_up_logging
from .drain import WRITE_OUT_SEC, Drain
from .limits import SWITCH_SEC, ServerLimits, chat_states
from .polled_worker import PolledWorker


class ChatWorker(PolledWorker):
    """SIGTERM begins the drain: the worker goes on accepting, so that new requests get their 503.

    SIGINT and SIGQUIT end all replies at once, which the master also sends when it gets one while it waits.
    """

    is_sized_by_app = True
    _drain: Drain | None = None

    def load_wsgi(self) -> None:
        super().load_wsgi()
        limits = ServerLimits.of(self.wsgi)
        if not logging.getLogger().handlers:  # the app has no logging of its own
            _, state = next(chat_states(self.wsgi))
            set_up_logging(state.settings.log_format)
        cfg = self.cfg
        cfg.set("threads", max(cfg.threads, limits.num_threads))
        cfg.set("worker_connections", max(cfg.worker_connections, limits.max_connections))
        self.max_body_len = limits.max_body_len
        self.client_timeout_sec = limits.client_timeout_sec
        drain_sec = max(min(limits.drain_sec, cfg.graceful_timeout - WRITE_OUT_SEC - 1), 0)
        cfg.set("graceful_timeout", int(WRITE_OUT_SEC))  # in this process: what the end of `run` waits for
        self.tpool = self.get_thread_pool()
        self.worker_connections = cfg.worker_connections
        self.max_keepalived = cfg.worker_connections - cfg.threads
        sys.setswitchinterval(SWITCH_SEC)
        self._drain = Drain(limits.engines, drain_sec, self._end)
        for engine in limits.engines:
            check_forked(engine)
            engine.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM; a second one is the same one: systemd may send it to each process, and the master does."""
        if self._drain is None:
            super().handle_exit(sig, frame)
        elif not self._drain.num_asked:
            self._drain.ask()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None:
            stop = threading.Thread(target=self._drain.stop, name="chatstream-stop")
            stop.start()
            stop.join(WRITE_OUT_SEC)
        _exit_even_if_a_client_takes_nothing()
        super().handle_quit(sig, frame)

    def _end(self) -> None:
        _exit_even_if_a_client_takes_nothing()
        super().handle_exit(0, None)


def _exit_even_if_a_client_takes_nothing() -> None:
    """The interpreter would wait for every thread that still writes."""
    timer = threading.Timer(WRITE_OUT_SEC + 2, os._exit, [0])
    timer.daemon = True
    timer.start()
