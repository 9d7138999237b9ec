"""Client that sends a known load to a real server and measures its replies."""

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

from ..client import ServerFailed, ServerProcess, free_port, parse_events
from ..config import EngineConfig
from ..errors import ConfigError
from .arrivals import Arrival
from .simulation import TurnRequest, TurnResult

START_SEC = 300.0
REPLY_SEC = 600.0
TOO_MANY = 429


@dataclass(frozen=True, kw_only=True)
class ClientResult:
    """Result of one turn as the client measured it."""

    result: TurnResult
    server_first_token_sec: float = 0.0  # time to the first token as the server measured it


class LoadClient:
    """Client of a server on this machine.

    :param text_of: returns a message of about the given number of prompt tokens
    """

    def __init__(self, port: int, text_of: Callable[[int], str]) -> None:
        self.port = port
        self._text_of = text_of

    def play(self, arrivals: Sequence[Arrival], max_open: int) -> list[ClientResult]:
        """Send each turn at its time, whether earlier ones have ended or not; at most `max_open` at once."""
        with ThreadPoolExecutor(max_open) as clients:
            began = time.perf_counter()
            sent = []
            for arrival in arrivals:
                time.sleep(max(began + arrival.at - time.perf_counter(), 0.0))
                sent.append(clients.submit(self.send, arrival.turn, began))
            return [future.result() for future in sent]

    def send(self, turn: TurnRequest, began: float = 0.0) -> ClientResult:
        """Send one turn and read its reply.

        :param began: start of the load by `time.perf_counter`
        :raises ConfigError: the server failed
        """
        body = {"user_input": self._text_of(turn.prompt_tokens), "max_new_tokens": turn.reply_tokens}
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_SEC)
        arrived_at = time.perf_counter()
        try:
            connection.request("POST", "/chat_stream", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status == TOO_MANY:
                return ClientResult(result=TurnResult(arrived_at=arrived_at - began, is_refused=True))
            if response.status != http.HTTPStatus.OK:
                raise ConfigError(f"the server answered {response.status}: {response.read(500)!r}")
            return self._read(response, arrived_at, began)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, arrived_at: float, began: float) -> ClientResult:
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
        result = TurnResult(
            arrived_at=arrived_at - began,
            reply_tokens=usage["completion_tokens"],
            queue_sec=timings["queue_ms"] / 1000,
            first_token_sec=(first_at or ended_at) - arrived_at,
            total_sec=ended_at - arrived_at,
        )
        server_first = (timings["time_to_first_token_ms"] or 0.0) / 1000
        return ClientResult(result=result, server_first_token_sec=server_first)


@contextmanager
def running_server(
    model: str,
    device: str | None,
    dtype: str,
    weights: str,
    mock_sec_per_token: float,
    config: EngineConfig,
    max_new_tokens: int,
) -> Iterator[int]:
    """Yield the port of a server in its own process, which ends with the block."""
    port = free_port()
    options = {
        "model": model,
        "device": device,
        "dtype": dtype,
        "weights": weights,
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
