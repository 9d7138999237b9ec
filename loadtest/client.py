"""A browser's side of the chat API, over plain sockets, which gevent makes cooperative."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from chatstream_flask.client import Event, EventReader

from .record import FAILED, LEFT, REFUSED, RIGHT, Record

TIMEOUT_SEC = 60.0  # for any single read
MAX_READ_LEN = 65_536  # bytes


class ChatClient:
    """One visitor with its cookies; each request opens a connection, as servers close it after a stream."""

    def __init__(self, url: str, visitor: str, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path.rstrip("/")
        self._visitor = visitor
        self._clock = clock
        self._cookies: dict[str, str] = {}

    def ask(self, action: str, body: dict[str, Any], leave_after: int | None = None) -> Record:
        """Request a reply and read it to the end, or disconnect after `leave_after` text events."""
        record = Record(visitor=self._visitor, action=action, sent_at=self._clock())
        try:
            connection, response = self._send("POST", "/chat_stream", body)
            try:
                record.headers_at, record.status = self._clock(), response.status
                self._read(response, record, leave_after)
            finally:
                response.close()
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            record.verdict, record.detail = FAILED, f"{type(error).__name__}: {error}"
        record.ended_at = self._clock()
        return record

    def fetch(self, method: str, path: str) -> tuple[Record, Any]:
        """Send a request; return its record and the JSON body, or None if there is none."""
        record = Record(visitor=self._visitor, action=path.strip("/"), sent_at=self._clock())
        data = None
        try:
            connection, response = self._send(method, path, None)
            try:
                record.headers_at, record.status = self._clock(), response.status
                data = json.loads(response.read())
                record.verdict = RIGHT if response.status == 200 else FAILED
            finally:
                response.close()
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            record.detail = f"{type(error).__name__}: {error}"
        record.ended_at = self._clock()
        return record, data

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection(*self._address, timeout=TIMEOUT_SEC)
        headers = {"Accept": "text/event-stream" if body else "application/json", "Connection": "close"}
        if body:
            headers["Content-Type"] = "application/json"
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection.request(method, self._path + path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        for header in response.headers.get_all("Set-Cookie", []):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
        return connection, response

    def _read(self, response: HTTPResponse, record: Record, leave_after: int | None) -> None:
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            return self._read_refusal(response, record)
        reader = EventReader()
        while data := response.read1(MAX_READ_LEN):
            now = self._clock()
            for event in reader.feed(data):
                _note(event, record, now)
            if leave_after is not None and len(record.arrivals) >= leave_after:
                record.verdict = LEFT
                return None
        if record.verdict != RIGHT and not record.detail:
            record.detail = "the stream ended without a done event"
        return None

    def _read_refusal(self, response: HTTPResponse, record: Record) -> None:
        body = response.read()
        is_full = response.status == 200 and json.loads(body) == {"error": "too_many_requests"}
        if response.status == 429 or is_full:
            record.verdict = REFUSED
            after = response.headers.get("Retry-After")
            record.retry_after = float(after) if after else None
        else:
            record.detail = f"status {response.status}: {body[:200]!r}"


def _note(event: Event, record: Record, now: float) -> None:
    if event.name == "text":
        text = event.data["text"]
        record.text += text
        record.arrivals.append((now, len(text.split())))
    elif event.name == "start":
        record.started_at = now
    elif event.name == "done":
        reason = event.data["finish_reason"]
        record.num_tokens = event.data["usage"]["completion_tokens"]
        record.verdict = RIGHT if reason in ("stop", "length") else FAILED
        record.detail = "" if record.verdict == RIGHT else f"the reply ended with {reason}"
    elif event.name == "error":
        record.detail = f"error event: {event.data}"
