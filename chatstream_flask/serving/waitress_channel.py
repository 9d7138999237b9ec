"""Connection of waitress with deadlines for clients that send or read too slowly."""

# mypy: allow-untyped-calls
from __future__ import annotations

import threading
import time
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import WSGITask

from ..http.streamed_response import BodyCut
from .limits import head_timeout
from .refusal import request_timeout


class ChatTask(WSGITask):
    """Request whose body the app may cut short, which closes the connection and is no error of the server."""

    def service(self) -> None:
        try:
            super().service()
        except BodyCut:
            self.close_on_finish = True


class ChatParser(HTTPRequestParser):
    """Parser of requests; each malformed one is answered with 400, after those that came before it."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of an address that urllib cannot split; waitress lets it through
            raise ParsingError("the request is malformed") from error
        # A proxy in front may take the other length, or the other host, and see another request than we do.
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("a request has either Content-Length or Transfer-Encoding")
        if "," in self.headers.get("HOST", ""):
            raise ParsingError("a request has one Host")


class ChatChannel(HTTPChannel):
    """Connection that is closed when its client does not send a request or read a response in time.

    When the limit of connections is reached, the connection that has waited longest for a request is closed
    for the new one.
    """

    task_class = ChatTask
    drains = True  # the server lets replies finish before it ends

    parser_class = ChatParser

    def __init__(
        self, client_timeout_sec: float, server: Any, sock: Any, addr: Any, adj: Any, map: dict[int, Any]
    ) -> None:
        """Accept a connection.

        :param client_timeout_sec: time for a whole request to arrive, and for a client to read anything
        """
        self.client_timeout_sec = client_timeout_sec
        self.waiting_since = time.monotonic()  # start of the wait for a request, or its first byte
        self._has_asked = False  # whether a whole request has arrived before
        super().__init__(server, sock, addr, adj, map=map)
        self.outbuf_lock = _ImpatientCondition(self)
        while len(map) >= adj.connection_limit and (oldest := _longest_waiting(map, self)) is not None:
            oldest.handle_close()

    @property
    def is_waiting(self) -> bool:
        """Return whether no thread works for this connection."""
        return not self.requests

    def readable(self) -> bool:
        """Check the deadline; waitress calls this for every connection at least once a second."""
        self._check_deadline()
        return bool(super().readable())

    def received(self, data: bytes) -> bool:
        before = self.request
        is_received = bool(super().received(data))
        if before is None or self.request is not before:
            self.waiting_since = time.monotonic()
        return is_received

    def service(self) -> None:
        self._has_asked = True
        super().service()
        if self.request is None or not self.request.completed:
            self.waiting_since = time.monotonic()

    def give_up(self) -> None:
        """End the connection although a thread still writes; that thread gets ClientDisconnected."""
        self.will_close = True
        self.connected = False
        self.server.pull_trigger()

    def _check_deadline(self) -> None:
        if self.requests or self.will_close:
            return
        now = time.monotonic()
        if self.total_outbufs_len or self.close_when_flushed:
            self.will_close = time.time() - self.last_activity > self.client_timeout_sec
        elif self.request is not None:
            max_sec = self.client_timeout_sec if self.request.headers_finished else self._head_sec
            if now - self.waiting_since > max_sec:
                self._refuse(request_timeout(has_head=self.request.headers_finished))
        elif not self._has_asked:
            self.will_close = now - self.waiting_since > self._head_sec

    @property
    def _head_sec(self) -> float:
        return head_timeout(self.client_timeout_sec)

    def _refuse(self, answer: bytes) -> None:
        """Respond without the app, behind responses that are still being sent, and close the connection."""
        with self.requests_lock, self.outbuf_lock:
            if self.requests:  # the request has just become complete
                return
            self.outbufs[-1].append(answer)
            self.total_outbufs_len += len(answer)
            self.close_when_flushed = True


class _ImpatientCondition(threading.Condition):
    """Condition on which a thread waits for its client to read; gives up after the client timeout."""

    def __init__(self, channel: ChatChannel) -> None:
        super().__init__()
        self._channel = channel

    def wait(self, timeout: float | None = None) -> bool:
        channel = self._channel
        is_notified = super().wait(channel.client_timeout_sec if timeout is None else timeout)
        if not is_notified and time.time() - channel.last_activity > channel.client_timeout_sec:
            channel.give_up()
        return is_notified


def _longest_waiting(map: dict[int, Any], newest: ChatChannel) -> ChatChannel | None:
    waiting = [
        it for it in map.values() if isinstance(it, ChatChannel) and it.is_waiting and it is not newest
    ]
    return min(waiting, key=lambda channel: channel.waiting_since, default=None)
