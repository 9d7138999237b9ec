"""Tokens per second of many streams at once: this project against thread-per-request `generate`.

Both are Flask apps under waitress with the same 31.8 M-parameter model in float32, asked greedily over real
HTTP by clients on the same machine; the two take turns, so that a machine that slows down slows both.

Run: scripts/bench [--streams 32] [--repeats 3]. A table for people, and one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_model import VOCAB_SIZE

KINDS = ("chatstream", "generate")
PROMPT_TOKENS = 64
START_SECONDS = 120
REQUEST_SECONDS = 600


@contextmanager
def running_server(kind: str, args: argparse.Namespace, streams: int) -> Iterator[int]:
    """The port of a server that answers; the server ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    script = str(Path(__file__).with_name("bench_server.py"))
    command = [sys.executable, script, kind, "--streams", str(streams), "--port", str(port)]
    command += ["--new-tokens", str(args.new_tokens)]
    if args.threads:
        command += ["--threads", str(args.threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_open(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it answered")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {START_SECONDS} s")


def read_reply(port: int, seed: int) -> tuple[int, float]:
    """Tokens of one reply, and seconds until its first byte."""
    numbers = random.Random(seed)
    prompt = " ".join(f"t{numbers.randrange(1, VOCAB_SIZE)}" for _ in range(PROMPT_TOKENS))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
    began = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/chat_stream", json.dumps({"user_input": prompt}), headers)
    response = connection.getresponse()
    first = response.read(1)
    first_byte = time.perf_counter() - began
    tokens = len((first + response.read()).split())
    connection.close()
    return tokens, first_byte


def measure(port: int, streams: int, new_tokens: int) -> dict[str, float]:
    """One round of all streams at once: tokens per second together, median seconds to the first byte."""
    with ThreadPoolExecutor(streams) as clients:
        began = time.perf_counter()
        replies = list(clients.map(lambda seed: read_reply(port, seed), range(streams)))
        seconds = time.perf_counter() - began
    wrong = [tokens for tokens, _ in replies if tokens != new_tokens]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {streams} replies did not have {new_tokens} tokens: {wrong}")
    first = statistics.median(first_byte for _, first_byte in replies)
    return {"tokens_per_s": streams * new_tokens / seconds, "first_byte_s": first}


def compare(args: argparse.Namespace, streams: int) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for repeat in range(args.repeats):
        for kind in KINDS:
            with running_server(kind, args, streams) as port:
                read_reply(port, seed=streams)  # the first request pays for starting up
                rounds[kind].append(measure(port, streams, args.new_tokens))
            say(f"  round {repeat + 1}, {kind}: {rounds[kind][-1]['tokens_per_s']:.0f} tokens/s")
    result: dict[str, Any] = {"streams": streams}
    for kind in KINDS:
        result[kind] = {
            name: round(statistics.median(r[name] for r in rounds[kind]), 3)
            for name in ("tokens_per_s", "first_byte_s")
        }
    ratios = [
        ours["tokens_per_s"] / theirs["tokens_per_s"]
        for ours, theirs in zip(rounds["chatstream"], rounds["generate"], strict=True)
    ]
    result["ratio"] = round(statistics.median(ratios), 2)
    return result


def print_table(results: list[dict[str, Any]]) -> None:
    print(f"{'streams':>8} {'chatstream':>16} {'generate':>16} {'ratio':>8}   first byte (s)")
    for r in results:
        ours, theirs = r["chatstream"], r["generate"]
        print(
            f"{r['streams']:>8} {ours['tokens_per_s']:>10.0f} tok/s {theirs['tokens_per_s']:>10.0f} tok/s "
            f"{r['ratio']:>7.1f}x   {ours['first_byte_s']:.2f} against {theirs['first_byte_s']:.2f}"
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[32])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="generation threads of this project")
    args = parser.parse_args()

    results = []
    for streams in args.streams:
        say(f"{streams} streams of {args.new_tokens} tokens, prompts of {PROMPT_TOKENS}:")
        results.append(compare(args, streams))
    print_table(results)
    conditions = {
        "model": "Llama, 31.8 M random parameters, float32",
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": args.new_tokens,
        "repeats": args.repeats,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    print(json.dumps({"benchmark": "streams", "conditions": conditions, "results": results}))


if __name__ == "__main__":
    main()
