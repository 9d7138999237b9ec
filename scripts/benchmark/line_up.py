"""LineUp: the servers of a group, and why others were left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from .entrant import Entrant
from .http_client import ask_all
from .prompts import Prompts
from .round import Round
from .say import say
from .servers.server import Server
from .workload import Texts, Workload

T = TypeVar("T")


@dataclass
class LineUp:
    """Running servers; one that fails is removed, with the reason, and the others continue."""

    running: dict[Entrant, Server] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def start(self, entrant: Entrant, make: Callable[[Entrant], Server]) -> None:
        try:
            server = make(entrant)
            server.start()
        except (OSError, RuntimeError, ValueError) as error:
            self._leave_out(entrant, error)
        else:
            self.running[entrant] = server
            say(f"{entrant.title} was ready after {server.start_sec:.1f} s")

    def attempt(self, entrant: Entrant, do: Callable[[Server], T]) -> T | None:
        """Return the result; None if the entrant has been left out, or fails now."""
        if entrant not in self.running:
            return None
        try:
            return do(self.running[entrant])
        except (OSError, RuntimeError, ValueError) as error:
            self._leave_out(entrant, error)
            self.running.pop(entrant).stop()
            return None

    def close(self) -> None:
        while self.running:
            self.running.popitem()[1].stop()

    def _leave_out(self, entrant: Entrant, error: Exception) -> None:
        say(f"{entrant.title} is left out: {error}")
        self.left_out[entrant.title] = str(error)


def play_in_turn(
    line_up: LineUp, workload: Workload, prompts: Prompts, repeats: int
) -> dict[Entrant, list[Round]]:
    """Return the rounds of each entrant; all get the same texts, and another one begins in each round."""
    random = Random(repr(workload))
    _play_all(line_up, workload.warm_up, prompts, random, list(line_up.running))
    rounds: dict[Entrant, list[Round]] = {entrant: [] for entrant in line_up.running}
    for repeat in range(repeats):
        order = list(line_up.running)
        first = repeat % len(order) if order else 0
        played = _play_all(line_up, workload, prompts, random, order[first:] + order[:first])
        for entrant, round_ in played.items():
            rounds[entrant].append(round_)
            say(f"{workload.title}, round {repeat + 1}, {entrant.title}: {round_.shown}")
    return {entrant: rounds[entrant] for entrant in line_up.running}


def _play_all(
    line_up: LineUp, workload: Workload, prompts: Prompts, random: Random, order: Sequence[Entrant]
) -> dict[Entrant, Round]:
    texts = workload.texts(prompts, random)
    played = (
        (entrant, line_up.attempt(entrant, lambda server: play(server, workload, texts))) for entrant in order
    )
    return {entrant: round_ for entrant, round_ in played if round_}


def play(server: Server, workload: Workload, texts: Texts) -> Round:
    """Let each stream ask for a reply to each of its texts, after what they share has been computed.

    :raises RuntimeError: a request failed
    :raises ValueError: a reply has a wrong number of tokens
    """
    requests = [
        [server.request(text, workload.new_tokens) for text in of_stream] for of_stream in texts.of_streams
    ]
    with server.awake() as port:
        if texts.shared:
            ask_all(port, [[server.request(texts.shared, 1)]])
        began = time.process_time()
        replies = ask_all(port, requests)
        client_cpu_sec = time.process_time() - began
    return Round.of(replies, workload, client_cpu_sec)
