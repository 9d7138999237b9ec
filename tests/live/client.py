"""Clients: a visitor with cookies, and a raw socket that can read slowly and disconnect abruptly."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import requests
from suite_size import size

from chatstream_flask.client import Event, dechunk, parse_events, text_of

EVENTS = "text/event-stream"
TEXT = "text/plain"
TIMEOUT_SEC = float(size(30, 300))  # for any single wait; a full suite may run beside much else


def wait_until(is_true: Callable[[], bool], timeout_sec: float = TIMEOUT_SEC) -> None:
    """Wait for something in another process; fail after `timeout_sec`."""
    deadline = time.monotonic() + timeout_sec
    pause = threading.Event()
    while not is_true():
        assert time.monotonic() < deadline, f"did not happen within {timeout_sec} s"
        pause.wait(0.01)


class Visitor:
    """One visitor with a cookie jar of its own."""

    def __init__(self, port: int, name: str = "", path: str = "/chat_stream", scheme: str = "http") -> None:
        self._url = f"{scheme}://127.0.0.1:{port}{path}"
        self.session = requests.Session()
        self.session.headers["X-Client"] = name

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def post(self, user_input: str, *, accept: str = TEXT, **fields: Any) -> requests.Response:
        body = {"user_input": user_input, **fields}
        headers = {"Accept": accept}
        return self.session.post(self._url, json=body, headers=headers, stream=True, timeout=TIMEOUT_SEC)

    def ask(self, user_input: str, **fields: Any) -> str:
        """Return the whole reply."""
        with self.post(user_input, **fields) as response:
            assert response.status_code == 200, response.text
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8", response.text
            return response.content.decode()

    def ask_for_events(self, user_input: str, **fields: Any) -> list[Event]:
        with self.post(user_input, accept=EVENTS, **fields) as response:
            assert response.status_code == 200, response.text
            return parse_events(response.content)


class SocketChat:
    """One POST /chat_stream over a raw socket."""

    def __init__(
        self,
        port: int,
        user_input: str = "Hello!",
        *,
        accept: str = EVENTS,
        name: str = "",
        cookie: str = "",
        version: str = "1.1",
        is_body_sent: bool = True,
        receive_buffer: int | None = None,  # bytes; None: the system's default
    ) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT_SEC)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", port))
        self.raw = b""  # everything received
        self.was_reset = False  # by the server
        body = json.dumps({"user_input": user_input}).encode()
        head = (
            f"POST /chat_stream HTTP/{version}\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Accept: {accept}\r\nX-Client: {name}\r\nCookie: {cookie}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + (body if is_body_sent else body[:5]))

    def __enter__(self) -> SocketChat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    # -- reading ---------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Receive what comes next; return False at the end."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            self.was_reset = True
            return False
        self.raw += data
        return bool(data)

    def read_until(self, is_enough: Callable[[SocketChat], bool]) -> SocketChat:
        while not is_enough(self):
            assert self.read(), f"the server ended the stream: {self.raw!r}"
        return self

    def read_what_is_there(self) -> None:
        self._socket.setblocking(False)
        try:
            while self.read():
                pass
        except BlockingIOError:
            pass
        self._socket.settimeout(TIMEOUT_SEC)

    def read_to_end(self) -> SocketChat:
        while self.read():
            pass
        return self

    # -- leaving ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send FIN, as a closed tab does; the system sends RST if data is unread."""
        self._socket.close()

    def reset(self) -> None:
        """Send RST, as a process that is killed with unread data or a firewall does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Send FIN and continue to read: no browser does it, and servers cannot tell it from a disconnect."""
        self._socket.shutdown(socket.SHUT_WR)

    # -- what was received -----------------------------------------------------------------------------

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        return int(self.head.split(" ", 2)[1])

    @property
    def body(self) -> bytes:
        return dechunk(self._raw_body)[0]

    @property
    def is_complete(self) -> bool:
        """Whether the server has marked the body as complete."""
        return dechunk(self._raw_body)[1]

    @property
    def events(self) -> list[Event]:
        return parse_events(self.body)

    @property
    def num_words(self) -> int:
        text = text_of(self.events) if f"content-type: {EVENTS}" in self.head.lower() else self.body.decode()
        return len(text.split())

    @property
    def _raw_body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function in a thread of its own; it gets an event that is set at the end of the block."""
    is_over = threading.Event()
    thread = threading.Thread(target=work, args=(is_over,), name="chatstream-test-beside")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
