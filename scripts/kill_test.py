"""Check that `kill -9` loses no turn: if a client has seen its end, it must be stored, once and complete.

Visitors chat with a server whose mock model echoes their messages. At a random moment the server is killed
and a new one starts on the same store; each visitor then compares what it remembers with what is stored.

Run: scripts/kill_test [--kills 100] [--visitors 8] [--store redis://127.0.0.1:6379]. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response, request

from chatstream_flask import ChatStream
from chatstream_flask.client import ServerProcess, free_port, read_events
from chatstream_flask.serving.waitress_server import serve

REQUEST_SECONDS = 20.0
SECONDS_ALIVE = (0.05, 0.6)  # range of the time that a server is under load
LEASE_SECONDS = 2.0  # after which another process may take over a conversation


# -- the server ------------------------------------------------------------------------------------------


def run_server(port: int, store: str | None, folder: str) -> None:
    app = Flask("kill_test", instance_path=folder)
    app.config.update(
        CHATSTREAM_COOKIE_SECURE=False, CHATSTREAM_STORE=store, CHATSTREAM_STORE_LEASE_SEC=LEASE_SECONDS
    )
    chat_stream = ChatStream(
        use_mock_response=True,
        mock_params={"type": "echo", "time_per_token_sec": 0.002},
        num_of_concurrent_executions=8,
        max_queue_size=100,
        app=app,
    )

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    @app.get("/history")
    def history() -> list[str | None]:
        return [content.message for content in chat_stream.get_chat_prompt(request).get_contents()]

    serve(app, "127.0.0.1", port)


def start_server(args: argparse.Namespace, folder: str) -> ServerProcess:
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), "--folder", folder]
    command += ["--store", args.store] if args.store else []
    return ServerProcess(command, port, Path(folder, "log"))


# -- the visitors ----------------------------------------------------------------------------------------


@dataclass
class Visitor:
    """Remembers its `acknowledged` turns, and the `pending` message, which may or may not be stored."""

    number: int
    acknowledged: list[str] = field(default_factory=list)
    pending: str | None = None
    num_sent: int = 0
    faults: list[str] = field(default_factory=list)
    session: requests.Session = field(default_factory=requests.Session)

    def talk(self, port: int, is_over: threading.Event) -> None:
        """Send one turn after the other until the server is gone."""
        while not is_over.is_set():
            self.num_sent += 1
            self.pending = f"visitor {self.number} turn {self.num_sent} of many" + " many" * (
                self.num_sent % 30
            )
            try:
                if not self._say(port, self.pending):
                    time.sleep(0.02)  # 409 until the lease of the killed server expires
                    continue
            except requests.RequestException:
                return
            self.acknowledged.append(self.pending)
            self.pending = None

    def compare(self, port: int) -> None:
        """Find missing, duplicated and mixed-up turns; a cut one must be stored completely or not at all."""
        url = f"http://127.0.0.1:{port}/history"
        kept = self.session.get(url, timeout=REQUEST_SECONDS).json()
        expected = [text for words in self.acknowledged for text in (words, words)]
        if self.pending is not None and kept[len(expected) : len(expected) + 1] == [self.pending]:
            reply = kept[len(expected) + 1]
            if not (reply and self.pending.startswith(reply)):
                self.faults.append(f"visitor {self.number}: the interrupted turn contains {reply!r}")
            expected += [self.pending, reply]
        if kept != expected:
            self.faults.append(
                f"visitor {self.number}: {len(kept)} messages stored, {len(expected)} expected"
            )
        self.acknowledged = kept[::2]
        self.pending = None

    def _say(self, port: int, words: str) -> bool:
        """Return whether the end of the reply was received."""
        url = f"http://127.0.0.1:{port}/chat_stream"
        headers = {"Accept": "text/event-stream"}
        answer = self.session.post(
            url, json={"user_input": words}, headers=headers, timeout=REQUEST_SECONDS, stream=True
        )
        if answer.status_code == 409:
            return False
        return any(event.name == "done" for event in read_events(answer.iter_content(chunk_size=1)))


def run_round(args: argparse.Namespace, folder: str, visitors: list[Visitor], numbers: random.Random) -> None:
    with start_server(args, folder) as server:
        server.wait_until_ready()
        for visitor in visitors:
            visitor.compare(server.port)
        is_over = threading.Event()
        threads = [threading.Thread(target=v.talk, args=(server.port, is_over)) for v in visitors]
        for thread in threads:
            thread.start()
        time.sleep(numbers.uniform(*SECONDS_ALIVE))
        server.kill()
        is_over.set()
        for thread in threads:
            thread.join(2 * REQUEST_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--store", help="CHATSTREAM_STORE; default: files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="folder for the server's files and log; default: a temporary one")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return run_server(args.serve, args.store, args.folder)

    if args.store:
        subprocess.run(
            [sys.executable, "-m", "chatstream_flask", "init-db", "--store", args.store], check=True
        )
    visitors = [Visitor(number) for number in range(args.visitors)]
    numbers = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or temporary
        for kill in range(args.kills):
            run_round(args, folder, visitors, numbers)
            if sys.stderr.isatty():
                print(f"\r{kill + 1}/{args.kills} kills", end="", file=sys.stderr)
        with start_server(args, folder) as server:
            server.wait_until_ready()
            for visitor in visitors:
                visitor.compare(server.port)
    report(args, visitors)


def report(args: argparse.Namespace, visitors: list[Visitor]) -> None:
    faults = [fault for visitor in visitors for fault in visitor.faults]
    result: dict[str, Any] = {
        "store": (args.store or "files").partition(":")[0],
        "kills": args.kills,
        "visitors": args.visitors,
        "turns_kept": sum(len(visitor.acknowledged) for visitor in visitors),
        "faults": faults,
    }
    print(f"{result['turns_kept']} turns stored over {args.kills} kills, {len(faults)} faults")
    print(json.dumps(result))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
