"""Check that `kill -9` loses no turn: if a client has seen its end, it must be stored, once and complete.

Visitors chat with a server whose mock model echoes their messages. At a random moment the server is killed
and a new one starts on the same store; each visitor then compares what it remembers with what is stored.

With --servers, several servers share the Redis of --store, each message and each reading goes to any of them,
and one is killed after the other while the visitors go on; a reply whose server died must end in words,
within 20 s.

Run: scripts/kill_test [--kills 100] [--visitors 8] [--store redis://127.0.0.1:6379] [--servers 3]. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from flask import Flask, request

from chatstream_flask import ChatStream
from chatstream_flask.client import ServerProcess, free_port, read_events
from chatstream_flask.serving.waitress_server import serve
from chatstream_flask.views import create_chat_blueprint

REQUEST_SECONDS = 20.0
SECONDS_ALIVE = (0.05, 0.6)  # range of the time that a server is under load
LEASE_SECONDS = 2.0  # after which another process may take over a conversation
SECONDS_BETWEEN_KILLS = (0.2, 1.0)  # range, with --servers


# -- the server ------------------------------------------------------------------------------------------


def run_server(port: int, store: str | None, folder: str, *, is_shared: bool) -> None:
    app = Flask("kill_test", instance_path=folder)
    app.config.update(
        CHATSTREAM_COOKIE_SECURE=False, CHATSTREAM_STORE=store, CHATSTREAM_STORE_LEASE_SEC=LEASE_SECONDS
    )
    if is_shared:
        app.config.update(SECRET_KEY="the same in all servers", CHATSTREAM_SHARED_REDIS=store)
    chat_stream = ChatStream(
        use_mock_response=True,
        mock_params={"type": "echo", "time_per_token_sec": 0.002},
        num_of_concurrent_executions=8,
        max_queue_size=100,
        app=app,
    )

    app.register_blueprint(create_chat_blueprint(chat_stream, ["chat_stream"]))

    @app.get("/history")
    def history() -> list[str | None]:
        return [content.message for content in chat_stream.get_chat_prompt(request).get_contents()]

    serve(app, "127.0.0.1", port)


def start_server(args: argparse.Namespace, folder: str, port: int | None = None) -> ServerProcess:
    port = port or free_port()
    command = [sys.executable, __file__, "--serve", str(port), "--folder", folder]
    command += ["--store", args.store] if args.store else []
    command += ["--servers", str(args.servers)]
    return ServerProcess(command, port, Path(folder, f"log-{port}"))


# -- the visitors ----------------------------------------------------------------------------------------


@dataclass
class Visitor:
    """Remembers its `acknowledged` turns, and the `pending` message, which may or may not be stored."""

    number: int
    num_elsewhere: int = 0  # replies that were read to their end in a second request, to any server
    num_ended_in_words: int = 0
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

    def talk_to_any(self, ports: list[int], is_over: threading.Event) -> None:
        """Send one turn after the other, each to any server, and compare after each that was cut."""
        numbers = random.Random(self.number)
        while not is_over.is_set():
            self.num_sent += 1
            filler = " many" * numbers.randrange(30)
            self.pending = f"visitor {self.number} turn {self.num_sent} of many{filler}"
            try:
                last = self._say_and_read_elsewhere(numbers, ports, self.pending)
            except requests.RequestException:  # the server was killed before it answered
                last = "cut"
            if last == "refused":
                self.pending = None
                time.sleep(0.05)  # 409 until the lease of the killed server expires
            elif last == "done":
                self.acknowledged.append(self.pending)
                self.pending = None
            else:
                self.num_ended_in_words += last == "error"
                self._compare_with_any(ports)

    def _say_and_read_elsewhere(self, numbers: random.Random, ports: list[int], words: str) -> str:
        """Send words to one server and read the reply from another one, as often as its reader is killed.

        :returns: the name of the last event; "refused" if the message was, "cut" if no server knows the reply
        """
        headers = {"Accept": "text/event-stream"}
        url = f"http://127.0.0.1:{numbers.choice(ports)}/chat_stream"
        with self.session.post(
            url, json={"user_input": words}, headers=headers, timeout=REQUEST_SECONDS, stream=True
        ) as answer:
            if not answer.ok:
                return "refused"
            message_id = answer.headers["X-ChatStream-Last-Generated-Message-Id"]
        deadline = time.monotonic() + REQUEST_SECONDS
        while time.monotonic() < deadline:
            url = f"http://127.0.0.1:{numbers.choice(ports)}/chat_stream/{message_id}"
            try:
                with self.session.get(url, headers=headers, timeout=REQUEST_SECONDS, stream=True) as answer:
                    if answer.status_code == 404:
                        return "cut"
                    last = [event.name for event in read_events(answer.iter_content(chunk_size=1))][-1]
            except (requests.RequestException, IndexError):  # the server that read it was killed
                time.sleep(0.05)
                continue
            if last in ("done", "error"):
                self.num_elsewhere += 1
                return last
        self.faults.append(f"visitor {self.number}: no end of a reply within {REQUEST_SECONDS} s")
        return "cut"

    def _compare_with_any(self, ports: list[int]) -> None:
        for port in itertools.cycle(ports):
            try:
                return self.compare(port)
            except requests.RequestException:
                time.sleep(0.05)

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


def run_servers(
    args: argparse.Namespace, folder: str, visitors: list[Visitor], numbers: random.Random
) -> None:
    """Kill one of several servers after the other, while visitors talk to all of them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(start_server(args, folder)) for _ in range(args.servers)]
        ports = [server.port for server in servers]
        for server in servers:
            server.wait_until_ready()
        is_over = threading.Event()
        stack.callback(is_over.set)
        threads = [threading.Thread(target=v.talk_to_any, args=(ports, is_over)) for v in visitors]
        for thread in threads:
            thread.start()
        for kill in range(args.kills):
            time.sleep(numbers.uniform(*SECONDS_BETWEEN_KILLS))
            victim = numbers.randrange(args.servers)
            servers[victim].kill()
            servers[victim] = stack.enter_context(start_server(args, folder, ports[victim]))
            servers[victim].wait_until_ready()
            show_progress(args, kill)
        is_over.set()
        for thread in threads:
            thread.join(2 * REQUEST_SECONDS)
            if thread.is_alive():
                visitors[threads.index(thread)].faults.append("a visitor hangs")
        for visitor in visitors:
            visitor.compare(ports[0])


def show_progress(args: argparse.Namespace, kill: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{kill + 1}/{args.kills} kills", end="", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--store", help="CHATSTREAM_STORE; default: files")
    parser.add_argument("--servers", type=int, default=1, help="how many share the Redis of --store")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="folder for the server's files and log; default: a temporary one")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return run_server(args.serve, args.store, args.folder, is_shared=args.servers > 1)

    if args.store:
        subprocess.run(
            [sys.executable, "-m", "chatstream_flask", "init-db", "--store", args.store], check=True
        )
    visitors = [Visitor(number) for number in range(args.visitors)]
    numbers = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or temporary
        if args.servers > 1:
            run_servers(args, folder, visitors, numbers)
            return report(args, visitors)
        for kill in range(args.kills):
            run_round(args, folder, visitors, numbers)
            show_progress(args, kill)
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
    if args.servers > 1:
        result["servers"] = args.servers
        result["read_elsewhere"] = sum(visitor.num_elsewhere for visitor in visitors)
        result["ended_in_words"] = sum(visitor.num_ended_in_words for visitor in visitors)
    print(f"{result['turns_kept']} turns stored over {args.kills} kills, {len(faults)} faults")
    print(json.dumps(result))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
