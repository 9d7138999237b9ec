"""An engine that speaks vLLM's dialect and fails exactly where a test says so.

`python -m fake_engine PORT PAUSE_SEC` serves one in a process of its own, to be killed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from chatstream_flask.demo_model import PATH as DEMO_MODEL

TIMEOUT = 30.0  # seconds; only reached when a test fails
EOS_ID = 1  # of the demo model
CONTEXT_LEN = 512
FIRST_ID = 3


def next_id(token_ids: Sequence[int]) -> int:
    """Return what the model says next: it depends on all tokens before, so that none may be missing."""
    value = 7
    for token_id in token_ids:
        value = (value * 31 + token_id) % 1009
    return FIRST_ID + value % 200


def continued(token_ids: Sequence[int], num: int) -> list[int]:
    """Return the next tokens of a reply."""
    ids = list(token_ids)
    for _ in range(num):
        ids.append(next_id(ids))
    return ids[len(token_ids) :]


@dataclass
class Fault:
    """What a request meets.

    :param after: tokens that are sent before
    :param status: answer with this status instead of a stream
    :param error: send an error event, then end the stream
    :param hangs: send nothing more, with the connection open
    """

    after: int = 0
    status: int = 200
    retry_after: str = "0.1"
    error: str = ""
    hangs: bool = False


@dataclass
class FakeEngine:
    """Generates `num_tokens` and then the end token, unless the request wants fewer."""

    encode: Any  # a tokenizer's
    port: int = 0
    num_tokens: int = 1000
    pause_sec: float = 0.0
    has_end_token: bool = True
    model_len: int = CONTEXT_LEN
    faults: list[Fault] = field(default_factory=list)  # of the next requests
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_running: int = 0
    is_down: bool = False  # for probes
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_running(self, num: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.num_running == num, TIMEOUT)

    def change_running(self, by: int) -> None:
        with self.changed:
            self.num_running += by
            self.changed.notify_all()


@contextmanager
def fake_engine(encode: Any, **options: Any) -> Iterator[FakeEngine]:
    engine = FakeEngine(encode, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # each connection has one request
        timeout = TIMEOUT

        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            if engine.is_down:
                self.answer(503, {})
            else:
                self.answer(200, {"data": [{"id": "fake", "max_model_len": engine.model_len}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not body.get("stream") and engine.is_down:
                self.answer(503, {})
            elif not body.get("stream"):
                ids = engine.encode(body["prompt"])
                self.answer(200, {"choices": [{"token_ids": [FIRST_ID], "prompt_token_ids": ids}]})
            else:
                engine.bodies.append(body)
                engine.headers.append(dict(self.headers))
                engine.change_running(1)
                try:
                    self.generate(body, engine.faults.pop(0) if engine.faults else None)
                except ConnectionError:
                    pass
                finally:
                    engine.change_running(-1)

        def generate(self, body: dict[str, Any], fault: Fault | None) -> None:
            if fault is not None and fault.status != 200:
                return self.answer(fault.status, {"message": "no"}, fault.retry_after)
            self.begin("text/event-stream")
            ids = list(body["prompt"])
            for index in range(body["max_tokens"]):
                if fault is not None and index == fault.after:
                    return self.fail(fault)
                has_ended = index == engine.num_tokens
                if has_ended and not engine.has_end_token:
                    return self.send([], "stop")
                ids.append(EOS_ID if has_ended else next_id(ids))
                end = "stop" if has_ended else "length" if index + 1 == body["max_tokens"] else None
                self.send(ids[-1:], end)
                if end:
                    return None
                time.sleep(engine.pause_sec)
            return None

        def fail(self, fault: Fault) -> None:
            if fault.error:
                self.event({"error": {"message": fault.error}})
            while fault.hangs:
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()
                time.sleep(0.02)

        def send(self, token_ids: list[int], end: str | None) -> None:
            self.event({"choices": [{"index": 0, "text": "", "token_ids": token_ids, "finish_reason": end}]})

        def event(self, data: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()

        def answer(self, status: int, data: dict[str, Any], retry_after: str = "") -> None:
            self.begin("application/json", status, retry_after)
            self.wfile.write(json.dumps(data).encode())

        def begin(self, kind: str, status: int = 200, retry_after: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", options.get("port", 0)), Handler)
    engine.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    tokenizer = Tokenizer.from_file(str(Path(DEMO_MODEL, "tokenizer.json")))
    port, pause_sec = int(sys.argv[1]), float(sys.argv[2])
    with fake_engine(lambda text: tokenizer.encode(text).ids, port=port, pause_sec=pause_sec):
        threading.Event().wait()
