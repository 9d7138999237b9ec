"""Threaded worker of gunicorn that is sized by the app it loads and drains before it ends."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import FrameType

from ..conversation.folder_lock import FolderInUse
from ..http.server_check import check_forked
from ..monitoring.log_format import set_up_logging
from .drain import WRITE_OUT_SEC, Drain
from .limits import SWITCH_SEC, ServerLimits, allow_connections, chat_states, claim_stores
from .polled_worker import PolledWorker
from .sweeps import Sweeps

logger = logging.getLogger("chatstream_flask")


class ChatWorker(PolledWorker):
    """Worker with threads and connections for the chats of its app.

    SIGTERM starts the drain: the worker continues to accept connections, so that new requests get a 503
    response. SIGINT and SIGQUIT end all replies at once; the master passes them on while it waits.
    """

    is_sized_by_app = True
    _drain: Drain | None = None

    def load_wsgi(self) -> None:
        super().load_wsgi()
        limits = ServerLimits.from_app(self.wsgi)
        if not logging.getLogger().handlers:  # the app has not configured logging
            _, state = next(chat_states(self.wsgi))
            set_up_logging(state.settings.log_format)
        self._claim_stores()
        cfg = self.cfg
        cfg.set("threads", max(cfg.threads, limits.num_threads))
        num_connections = max(cfg.worker_connections, limits.max_connections)
        cfg.set("worker_connections", allow_connections(limits, num_connections))
        self.max_body_len = limits.max_body_len
        self.client_timeout_sec = limits.client_timeout_sec
        drain_sec = max(min(limits.drain_sec, cfg.graceful_timeout - WRITE_OUT_SEC - 1), 0)
        cfg.set("graceful_timeout", int(WRITE_OUT_SEC))  # how long the end of `run` waits, after the drain
        self.tpool = self.get_thread_pool()
        self.worker_connections = cfg.worker_connections
        self.max_keepalived = cfg.worker_connections - cfg.threads
        sys.setswitchinterval(SWITCH_SEC)
        self._drain = Drain(limits.engines, drain_sec, self._end)
        for engine in limits.engines:
            check_forked(engine)
            engine.start()
        Sweeps(limits.sweepers).start()

    def _claim_stores(self) -> None:
        """Refuse to start on the conversations of another server.

        After a reload the previous worker of this master finishes its replies first. Until then chats get
        status 503 from this one, too.
        """
        try:
            claim_stores(self.wsgi)
        except FolderInUse as error:
            if error.parent_pid != os.getppid():
                raise
            logger.info("chats begin when the previous worker has finished its replies")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the drain on SIGTERM.

        A second SIGTERM is ignored: systemd may send the signal to each process, and the master passes it on.
        """
        if self._drain is None:
            super().handle_exit(sig, frame)
        elif not self._drain.num_asked:
            self._drain.ask()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None:
            stop = threading.Thread(target=self._drain.stop, name="chatstream-stop")
            stop.start()
            stop.join(WRITE_OUT_SEC)
        _force_exit_later()
        super().handle_quit(sig, frame)

    def _end(self) -> None:
        _force_exit_later()
        super().handle_exit(0, None)


def _force_exit_later() -> None:
    """Exit even if a client does not read: the interpreter would wait for the thread that writes."""
    timer = threading.Timer(WRITE_OUT_SEC + 2, os._exit, [0])
    timer.daemon = True
    timer.start()
