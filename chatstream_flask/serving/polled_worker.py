"""Worker of gunicorn whose threads get complete requests only and do not wait for slow clients."""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import threading
import time
from concurrent import futures
from http import HTTPStatus
from typing import Any

from gunicorn import http
from gunicorn import sock as gunicorn_sock
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import IterUnreader
from gunicorn.http2 import negotiation
from gunicorn.workers.gthread import ThreadWorker

from .client_socket import ClientSocket
from .connection import Connection, HeldUnreader
from .connection_poller import ConnectionPoller
from .refusal import refusal, request_timeout
from .request_buffer import Progress
from .request_receiver import RequestReceiver
from .response_sender import ResponseSender

STOP_IDLE_SEC = 2.0  # time that a stopping worker waits for a request that may already be on its way
MAX_LARGE_BODIES = 4  # requests with bodies above the limit that threads may read at once
MAX_HTTP2 = 4  # HTTP/2 connections; each holds a thread until it ends
MAX_BUFFERED = 67_108_864  # bytes of incomplete requests of all connections together
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)


class PolledWorker(ThreadWorker):
    """Worker whose main loop receives whole requests and sends what slow clients have not read yet.

    A client that sends slowly or not at all takes a connection until a deadline, but no thread. When all
    connections are in use, the one that has waited longest for a request is closed for a new one. A body
    above `max_body_len` is read by the thread of the app if the app reads it; MAX_LARGE_BODIES may be read at
    once. HTTP/2, the PROXY protocol version 2 and uwsgi are left to gunicorn, as only trusted proxies use
    them or the operator has to enable them.
    """

    max_body_len = 1_048_576  # bytes
    client_timeout_sec = 60.0  # for a whole request to arrive, and for a client to read anything

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_large = 0  # large bodies that threads are reading
        self._http2_slots = threading.BoundedSemaphore(MAX_HTTP2)

    def init_process(self) -> None:
        self.cfg.set("sendfile", False)  # it would bypass ClientSocket
        self.cfg.set("do_handshake_on_connect", False)  # the poller does it
        super().init_process()

    def run(self) -> None:
        self._polled = ConnectionPoller(self.poller, self._failed)
        self._receiver = RequestReceiver(
            self.cfg,
            self._polled,
            max_body_len=self.max_body_len,
            client_timeout_sec=self.client_timeout_sec,
            on_request=self._serve,
            on_more=self._make_room,
            close=self._close,
        )
        self._sender = ResponseSender(
            self._polled,
            client_timeout_sec=self.client_timeout_sec,
            on_kept=self._wait_for_next,
            close=self._close,
        )
        super().run()

    # -- connections -----------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in NO_MORE_FILES and self._polled:
                self._close(self._polled.oldest)
            elif error.errno in NO_MORE_FILES:
                time.sleep(0.01)  # a request may end meanwhile
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        conn = Connection(self.cfg, sock, client, listener.getsockname())
        self.nr_conns += 1
        if self._is_for_gunicorn(conn):
            self._polled.watch(conn, selectors.EVENT_READ, self._leave_to_gunicorn, self._receiver.head_sec)
        elif self.cfg.is_ssl:
            self._begin_tls(conn)
        else:
            self._adopt(conn, sock)
            self._receiver.wait_for_request(conn, b"", self._receiver.head_sec)
        self._make_room()

    def _is_for_gunicorn(self, conn: Connection) -> bool:
        cfg = self.cfg
        if cfg.protocol != "http" or cfg.proxy_protocol not in ("off", "v1"):
            return True
        return not cfg.is_ssl and bool(negotiation.prior_knowledge_allowed(cfg, conn.client))

    def _leave_to_gunicorn(self, conn: Connection) -> None:
        self._polled.unwatch(conn)
        conn.data_ready = True
        self.enqueue_req(conn)

    def _adopt(self, conn: Connection, sock: socket.socket) -> None:
        conn.sock = ClientSocket(
            sock,
            lambda: self.method_queue.defer(self._sender.send_while_served, conn),
            self.client_timeout_sec,
        )

    def _begin_tls(self, conn: Connection) -> None:
        try:
            conn.sock = gunicorn_sock.ssl_wrap_socket(conn.sock, self.cfg)
        except OSError:  # the client has disconnected
            self._close(conn)
            return
        self._polled.watch(conn, selectors.EVENT_READ, self._shake_hands, self._receiver.head_sec)

    def _shake_hands(self, conn: Connection) -> None:
        try:
            conn.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            is_read = isinstance(error, ssl.SSLWantReadError)
            self._polled.change(conn, selectors.EVENT_READ if is_read else selectors.EVENT_WRITE)
            return
        except OSError:
            self._close(conn)
            return
        self._polled.unwatch(conn)
        if gunicorn_sock.is_http2_negotiated(conn.sock):
            conn.initialized, conn.is_http2, conn.is_http2_greeted = True, True, False
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client, http2_connection=True)
            self.enqueue_req(conn)
        else:
            self._adopt(conn, conn.sock)
            self._receiver.wait_for_request(conn, b"", self._receiver.head_sec)
            self._receiver.receive(conn)  # TLS may have decrypted bytes that the poller does not see

    def _close(self, conn: Connection) -> None:
        self._polled.unwatch(conn)
        self.nr_conns -= 1
        if conn.is_polled:
            conn.sock.fail(ConnectionAbortedError())
            conn.sock = conn.sock.sock
        conn.close()

    def _make_room(self) -> None:
        """Close the longest waiting connections until there is room for one more."""
        while len(self._polled) > 1 and (
            self.nr_conns >= self.worker_connections or self._polled.num_buffered > MAX_BUFFERED
        ):
            self._close(self._polled.oldest)

    # -- requests --------------------------------------------------------------------------------------

    def _serve(self, conn: Connection) -> None:
        """Pass the request to a thread."""
        assert conn.buffer is not None
        conn.is_large = conn.buffer.progress is Progress.LARGE
        data, conn.rest = conn.buffer.take()
        self._polled.unwatch(conn)
        if conn.is_large and self._num_large >= MAX_LARGE_BODIES:
            conn.is_large = False
            detail = "too many large bodies are being read"
            self._sender.refuse(conn, refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_requests", detail))
            return
        self._num_large += conn.is_large
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = HeldUnreader()
            conn.initialized = conn.data_ready = True
        conn.parser.unreader.hold(data, conn.sock if conn.is_large else None)
        self.enqueue_req(conn)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Serve a request in a thread; one whose body is malformed is refused before the app sees it."""
        if conn.is_polled:
            is_upgrade = any(name == "UPGRADE" for name, _ in req.headers)  # a WebSocket may be silent
            conn.sock.settimeout(None if is_upgrade and not conn.is_large else self.client_timeout_sec)
            if conn.has_continued:
                req._expected_100_continue = False
            if conn.is_large:
                req.force_close()  # the app may leave some of the body unread
            else:
                try:
                    body = req.body.read()
                except ParseException as error:
                    self.handle_error(req, conn.sock, conn.client, error)
                    raise StopIteration from error
                req.body = Body(LengthReader(IterUnreader([body]), len(body)))
                if any(name == "TRANSFER-ENCODING" for name, _ in req.headers):  # now its length is known
                    headers = [field for field in req.headers if field[0] != "TRANSFER-ENCODING"]
                    req.headers = [*headers, ("CONTENT-LENGTH", str(len(body)))]
        return bool(super().handle_request(req, conn))

    def handle_http2(self, conn: Any) -> bool:
        """Serve a connection until it ends; close it at once if there are MAX_HTTP2 already."""
        if not self._http2_slots.acquire(blocking=False):
            return False
        try:
            conn.sock.settimeout(self.client_timeout_sec)
            if not conn.is_http2_greeted:
                conn.parser.initiate_connection()
            return bool(super().handle_http2(conn))
        finally:
            self._http2_slots.release()

    def finish_request(self, conn: Any, fs: futures.Future[Any]) -> None:
        if not conn.is_polled:
            super().finish_request(conn, fs)
            return
        self._num_large -= conn.is_large
        conn.is_large = False
        try:
            self._sender.send_rest(conn, is_kept=bool(not fs.cancelled() and fs.result()))
        except Exception:
            self.log.exception("A connection failed")
            self._close(conn)

    def _wait_for_next(self, conn: Connection) -> None:
        data = conn.parser.unreader.take_all() + conn.rest
        max_sec = self.cfg.keepalive if self.alive else STOP_IDLE_SEC
        self._receiver.wait_for_request(conn, data, max_sec)
        self._make_room()

    # -- the main loop ---------------------------------------------------------------------------------

    def _failed(self, conn: Connection) -> None:
        self.log.exception("A connection failed")
        if conn in self._polled:
            self._close(conn)
        else:  # a thread still has it
            self._polled.unwatch(conn)
            conn.sock.fail(ConnectionAbortedError())

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        sec = 1.0 if timeout is None else timeout
        super().wait_for_and_dispatch_events(min(sec, self._polled.first_deadline_sec))

    def murder_pending(self) -> None:
        """Close the connections whose deadline has passed."""
        super().murder_pending()
        for conn in self._polled.expired():
            if conn.buffer is not None and conn.began_at is not None:
                has_head = conn.buffer.progress is Progress.BODY
                self._polled.unwatch(conn)
                self._sender.refuse(conn, request_timeout(has_head=has_head))
                continue
            if self._sender.is_sending(conn):
                sec = self.client_timeout_sec
                self.log.info("A client did not read its response for %g s: the connection is closed", sec)
            self._close(conn)

    def murder_keepalived(self, force: bool = False) -> None:
        super().murder_keepalived(force)  # type: ignore[call-arg]
        if force:
            for conn in self._polled.all:
                self._close(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)  # type: ignore[misc]
        for conn in self._polled.all:
            if conn.buffer is not None:  # answers may still be sent
                conn.deadline = min(conn.deadline, deadline)
