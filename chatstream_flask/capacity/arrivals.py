"""Loads that are known in advance: turns and the times at which clients send them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ..errors import ConfigError
from .simulation import Simulation, TurnRequest, TurnResult
from .workload import random_length

MAX_LENGTH_FACTOR = 4  # longest message or reply / mean length
LENGTH_MARGIN = 16  # tokens by which a message may be longer than intended


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A turn and the time at which a client sends it."""

    at: float  # seconds since the start of the load
    turn: TurnRequest


def poisson_arrivals(
    turns_per_sec: float,
    num_sec: float,
    prompt_tokens: int,
    reply_tokens: int,
    spread: float,
    seed: int,
    context_len: int,
) -> list[Arrival]:
    """Return turns that arrive at random for `num_sec` seconds, with random lengths.

    No length is more than MAX_LENGTH_FACTOR times its mean, and every turn fits into the context.

    :param spread: standard deviation / mean of the lengths
    :raises ConfigError: the context is too short for turns of these lengths
    """
    longest_reply = MAX_LENGTH_FACTOR * reply_tokens
    longest_prompt = min(MAX_LENGTH_FACTOR * prompt_tokens, context_len - longest_reply - LENGTH_MARGIN)
    if longest_prompt < prompt_tokens:
        least = prompt_tokens + longest_reply + LENGTH_MARGIN
        raise ConfigError(f"the context must have at least {least} tokens, not {context_len}")
    random, arrivals = Random(seed), list[Arrival]()
    at = random.expovariate(turns_per_sec)
    while at < num_sec:
        prompt = random_length(random, prompt_tokens, spread, longest_prompt)
        reply = random_length(random, reply_tokens, spread, longest_reply)
        turn = TurnRequest(visitor=len(arrivals), prompt_tokens=prompt, reply_tokens=reply)
        arrivals.append(Arrival(at=at, turn=turn))
        at += random.expovariate(turns_per_sec)
    return arrivals


def burst(num: int, prompt_tokens: int, reply_tokens: int) -> list[Arrival]:
    """Return `num` turns of different visitors that arrive at the same time."""
    turns = [
        TurnRequest(visitor=i, prompt_tokens=prompt_tokens, reply_tokens=reply_tokens) for i in range(num)
    ]
    return [Arrival(at=0.0, turn=turn) for turn in turns]


def play_simulated(simulation: Simulation, arrivals: Sequence[Arrival]) -> list[TurnResult]:
    """Simulate a load until its last reply has ended."""
    for arrival in arrivals:
        simulation.at(arrival.at, lambda turn=arrival.turn: simulation.submit(turn))  # type: ignore[misc]
    simulation.run()
    return simulation.results
