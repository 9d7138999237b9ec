"""A client that puts a real server under a load that is known in advance, and keeps what it met."""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ..client import ServerFailed, ServerProcess, free_port, parse_events
from ..config import EngineConfig
from ..errors import ConfigError
from .simulation import Answer, Ask, Simulation
from .workload import length

START_SEC = 300.0
REPLY_SEC = 600.0
TOO_MANY = 429
LONGEST = 4  # times the mean length
ROOM = 16  # tokens: a message has only about as many as it should


@dataclass(frozen=True, kw_only=True)
class Arrival:
    at: float  # seconds from the begin
    ask: Ask


@dataclass(frozen=True, kw_only=True)
class Met:
    """The client's view, and the server's own time to the first token."""

    answer: Answer
    server_first_token_sec: float = 0.0
    prompt_tokens: int = 0


class LoadClient:
    """`text_of` makes a message of about so many prompt tokens."""

    def __init__(self, port: int, text_of: Callable[[int], str]) -> None:
        self.port = port
        self._text_of = text_of

    def play(self, arrivals: Sequence[Arrival], max_open: int) -> list[Met]:
        """Asks at the given times, whatever the server does; at most `max_open` at once."""
        with ThreadPoolExecutor(max_open) as clients:
            began = time.perf_counter()
            asked = []
            for arrival in arrivals:
                time.sleep(max(began + arrival.at - time.perf_counter(), 0.0))
                asked.append(clients.submit(self.ask, arrival.ask, began))
            return [future.result() for future in asked]

    def ask(self, ask: Ask, began: float = 0.0) -> Met:
        body = {"user_input": self._text_of(ask.prompt_tokens), "max_new_tokens": ask.reply_tokens}
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_SEC)
        asked_at = time.perf_counter()
        try:
            connection.request("POST", "/chat_stream", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status == TOO_MANY:
                return Met(answer=Answer(asked_at=asked_at - began, is_refused=True))
            if response.status != http.HTTPStatus.OK:
                raise ConfigError(f"the server answered {response.status}: {response.read(500)!r}")
            return self._read(response, asked_at, began)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, asked_at: float, began: float) -> Met:
        received, first_at = b"", 0.0
        while chunk := response.read1(65536):
            received += chunk
            if not first_at and b"event: text" in received:
                first_at = time.perf_counter()
        ended_at = time.perf_counter()
        done = next((event.data for event in parse_events(received) if event.name == "done"), None)
        if done is None:
            raise ConfigError(f"the reply broke off: ...{received[-200:]!r}")
        usage, timings = done["usage"], done["timings"]
        answer = Answer(
            asked_at=asked_at - began,
            reply_tokens=usage["completion_tokens"],
            queue_sec=timings["queue_ms"] / 1000,
            first_token_sec=(first_at or ended_at) - asked_at,
            total_sec=ended_at - asked_at,
        )
        server_first = (timings["time_to_first_token_ms"] or 0.0) / 1000
        return Met(answer=answer, server_first_token_sec=server_first, prompt_tokens=usage["prompt_tokens"])


def poisson_arrivals(
    turns_per_sec: float,
    num_sec: float,
    prompt_tokens: int,
    reply_tokens: int,
    spread: float,
    seed: int,
    context_len: int,
) -> list[Arrival]:
    """No length is above four times its mean, and all fit into the context."""
    longest_reply = LONGEST * reply_tokens
    longest_prompt = min(LONGEST * prompt_tokens, context_len - longest_reply - ROOM)
    if longest_prompt < prompt_tokens:
        least = prompt_tokens + longest_reply + ROOM
        raise ConfigError(f"the context must have at least {least} tokens, not {context_len}")
    random, arrivals = Random(seed), list[Arrival]()
    at = random.expovariate(turns_per_sec)
    while at < num_sec:
        prompt = length(random, prompt_tokens, spread, longest_prompt)
        reply = length(random, reply_tokens, spread, longest_reply)
        ask = Ask(visitor=len(arrivals), prompt_tokens=prompt, reply_tokens=reply)
        arrivals.append(Arrival(at=at, ask=ask))
        at += random.expovariate(turns_per_sec)
    return arrivals


def burst(num: int, prompt_tokens: int, reply_tokens: int) -> list[Arrival]:
    """All at once."""
    asks = [Ask(visitor=i, prompt_tokens=prompt_tokens, reply_tokens=reply_tokens) for i in range(num)]
    return [Arrival(at=0.0, ask=ask) for ask in asks]


def play_simulated(simulation: Simulation, arrivals: Sequence[Arrival]) -> list[Answer]:
    for arrival in arrivals:
        simulation.at(arrival.at, lambda ask=arrival.ask: simulation.ask(ask))  # type: ignore[misc]
    simulation.run()
    return simulation.answers


@contextmanager
def running_server(
    model: str, device: str | None, mock_sec_per_token: float, config: EngineConfig, max_new_tokens: int
) -> Iterator[int]:
    """Yield the port of a server in its own process, which ends with the block."""
    port = free_port()
    options = {
        "model": model,
        "device": device,
        "mock-sec-per-token": mock_sec_per_token,
        "slots": config.max_running,
        "threads": config.num_of_generation_threads,
        "queue": config.max_queue_size,
        "context-len": config.context_len,
        "max-new-tokens": max_new_tokens,
        "port": port,
    }
    command = [sys.executable, "-m", "chatstream_flask.capacity.load_server"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(command, port, Path(folder, "log")) as server,
    ):
        try:
            server.wait_until_ready(timeout_sec=START_SEC)
        except ServerFailed as error:
            raise ConfigError(str(error)) from None
        yield port
