"""Engines are killed while they generate: each reply has all its tokens, in order, once, and no others.

Each token of these engines depends on all tokens before it, so a reply that another engine continues after a
token that is lost, doubled, or of another reply, differs from there on.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from fake_engine import FIRST_ID, continued
from suite_size import size

from chatstream_flask.client import free_port
from chatstream_flask.demo_model import PATH as DEMO_MODEL

from .client import TIMEOUT_SEC, wait_until
from .server import Server

pytestmark = pytest.mark.server

NUM_CLIENTS, NUM_ENGINES = 6, 2
NUM_TOKENS, TOKEN_SEC = 60, 0.01
SECONDS_BETWEEN_KILLS = (0.1, 0.8)


@dataclass
class Client:
    """Asks for one reply after the other."""

    port: int
    number: int
    num_replies: int = 0
    longest_gap_sec: float = 0.0  # from one token to the next
    faults: list[str] = field(default_factory=list)

    def ask_until(self, is_over: threading.Event) -> None:
        numbers = random.Random(self.number)
        with requests.Session() as session:
            while not is_over.is_set():
                prompt = [numbers.randrange(FIRST_ID, FIRST_ID + 200) for _ in range(12)]
                got = self._reply(session, prompt)
                self.num_replies += 1
                if got != continued(prompt, NUM_TOKENS):
                    self.faults.append(f"{prompt} was continued with {got}")

    def _reply(self, session: requests.Session, prompt: list[int]) -> list[int]:
        fields = {"temperature": 0, "max_tokens": NUM_TOKENS, "stream": True, "return_token_ids": True}
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        ids: list[int] = []
        last_at = None
        with session.post(url, json={"prompt": prompt, **fields}, stream=True, timeout=TIMEOUT_SEC) as answer:
            if answer.status_code != 200:
                self.faults.append(answer.text)
            for line in answer.iter_lines(chunk_size=1):
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    new = [i for one in chunk.get("choices", ()) for i in one.get("token_ids") or ()]
                    if "error" in chunk:
                        self.faults.append(str(chunk["error"]))
                    if new and last_at is not None:
                        self.longest_gap_sec = max(self.longest_gap_sec, time.monotonic() - last_at)
                    last_at = time.monotonic() if new else last_at
                    ids += new
        return ids


@contextmanager
def engine(folder: Path, port: int) -> Iterator[Server]:
    with Server([sys.executable, "-m", "fake_engine", str(port), str(TOKEN_SEC)], port, folder) as server:
        server.wait_until_ready("/v1/models")
        yield server


def counts(port: int, name: str) -> dict[str, float]:
    """Return a metric of each engine, by its URL."""
    lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_SEC).text.splitlines()
    found = [line.split() for line in lines if line.startswith(f"chatstream_engine_{name}{{")]
    return {label.split('"')[1]: float(value) for label, value in found}


def test_replies_of_killed_engines_are_continued_exactly(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    num_kills, numbers = size(4, 100), random.Random(0)
    ports = [free_port() for _ in range(NUM_ENGINES)]
    port = free_port()
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(port)]
    command += [
        "--engine",
        ",".join(f"http://127.0.0.1:{it}" for it in ports),
        "--tokenizer",
        str(DEMO_MODEL),
    ]
    command += ["--num-of-concurrent-executions", str(NUM_CLIENTS)]
    with ExitStack() as stack:
        engines = [stack.enter_context(engine(tmp_path / str(it), it)) for it in ports]
        environ = {"FLASK_CHATSTREAM_METRICS": "open"}
        front = stack.enter_context(Server(command, port, tmp_path / "front", environ))
        front.wait_until_ready("/health/ready")
        is_over = threading.Event()
        clients = [Client(port, number) for number in range(NUM_CLIENTS)]
        threads = [threading.Thread(target=client.ask_until, args=(is_over,)) for client in clients]
        stack.callback(is_over.set)
        for thread in threads:
            thread.start()
        for _ in range(num_kills):
            wait_until(lambda: min(counts(port, "up").values()) == 1)
            wait_until(lambda: max(counts(port, "requests_running").values()) > 0)
            time.sleep(numbers.uniform(*SECONDS_BETWEEN_KILLS))
            running = counts(port, "requests_running")
            victim = max(range(NUM_ENGINES), key=lambda it: running[f"http://127.0.0.1:{ports[it]}"])
            engines[victim].kill()
            engines[victim] = stack.enter_context(engine(tmp_path / str(ports[victim]), ports[victim]))
        is_over.set()
        for thread in threads:
            thread.join()
        num_failures = sum(counts(port, "failures_total").values())
    assert [fault for client in clients for fault in client.faults] == []
    assert num_failures > 0
    num_replies = sum(client.num_replies for client in clients)
    gap_sec = max(client.longest_gap_sec for client in clients)
    record_property(
        "figure",
        f"{num_kills} kills of an engine, {num_replies:,} replies, {num_failures:.0f} streams broken, "
        f"no token lost, doubled or mixed; longest gap {gap_sec:.2f} s",
    )
