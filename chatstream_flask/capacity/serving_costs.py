"""What tokens and turns cost beyond the steps of the model, measured on a real server with real clients."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ..config import EngineConfig
from .load_client import LONGEST, ROOM, Arrival, Met, burst, play_simulated, poisson_arrivals
from .profile import Profile
from .simulation import Answer, Ask, Simulation
from .step_costs import StepCosts

PROMPT_TOKENS = 32
REPLY_TOKENS = 64
NUM_ROUNDS = 5
BUSY_LOAD = 0.9  # of what full slots can do
BUSY_SEC = 10.0
BUSY_REPLY_TOKENS = 32
MAX_REPLY_TOKENS = LONGEST * BUSY_REPLY_TOKENS  # that the server must allow
SPREAD = 0.5  # of lengths: standard deviation over mean
SEED = 1000  # no check has the same arrivals
MAX_TURN_SEC = 0.5
MIN_PROMPT_FACTOR, MAX_PROMPT_FACTOR = 0.5, 4.0  # of what it takes alone
NUM_HALVINGS = 10
NUM_FITS = 2
NUM_PROBES = 8  # turns whose way to the queue and back is measured
PROBE_GAP_SEC = 0.05


class Client(Protocol):
    def play(self, arrivals: Sequence[Arrival], max_open: int) -> list[Met]:
        """What each request met, in this order."""


def with_serving_costs(profile: Profile, client: Client, config: EngineConfig) -> Profile:
    """The profile with `request_sec` and `turn_sec`, and `token_sec` for the config's number of threads.

    As many clients as slots ask for one long reply each; the price of a token is what the simulation lacks.
    Then clients come at random, nearly as many as can be served: prompts and turns have the price at which
    the simulation takes as long for a prompt, and for a token.
    """
    client.play(burst(1, PROMPT_TOKENS, REPLY_TOKENS), 1)  # the first request pays for starting up
    profile = replace(profile, request_sec=_request_sec(client, config))
    if profile.mock_sec_per_token is not None:
        return profile
    num_slots, threads = config.max_running, config.num_of_generation_threads
    costs = profile.costs_of(threads)
    real_sec = statistics.median(_real_burst_sec(client, num_slots) for _ in range(NUM_ROUNDS))
    simulated_sec = _burst_sec(play_simulated(Simulation(profile, config), _burst(num_slots)))
    if real_sec < simulated_sec:  # the machine had more to do while the steps were measured
        costs = costs.scaled(real_sec / simulated_sec)
        profile = _with_costs(profile, costs)
    arrivals = _busy_arrivals(num_slots / real_sec * REPLY_TOKENS, config)
    met = [it for it in client.play(arrivals, len(arrivals)) if not it.answer.is_refused]
    real_token_sec = _token_sec([it.answer for it in met])
    real_prompt_sec = statistics.mean(it.server_first_token_sec - it.answer.queue_sec for it in met)

    def priced(prompt_factor: float, turn_sec: float) -> Profile:
        free = costs.scaled(1.0, prompt_factor)
        without = replace(_with_costs(profile, free), turn_sec=turn_sec)
        missing_sec = real_sec - _burst_sec(play_simulated(Simulation(without, config), _burst(num_slots)))
        num_tokens = num_slots / threads * REPLY_TOKENS
        return _with_costs(without, replace(free, token_sec=max(missing_sec, 0.0) / num_tokens))

    def simulated(prompt_factor: float, turn_sec: float) -> list[Answer]:
        answers = play_simulated(Simulation(priced(prompt_factor, turn_sec), config), arrivals)
        return [answer for answer in answers if not answer.is_refused]

    def prompt_sec(prompt_factor: float) -> float:
        answers = simulated(prompt_factor, turn_sec)
        return statistics.mean(a.first_token_sec - a.queue_sec for a in answers) - profile.request_sec

    def token_sec(turn_sec: float) -> float:
        return _token_sec(simulated(prompt_factor, turn_sec))

    prompt_factor, turn_sec = 1.0, 0.0
    for _ in range(NUM_FITS):
        prompt_factor = where(prompt_sec, real_prompt_sec, MIN_PROMPT_FACTOR, MAX_PROMPT_FACTOR)
        turn_sec = where(token_sec, real_token_sec, 0.0, MAX_TURN_SEC)
    return priced(prompt_factor, turn_sec)


def where(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where between `low` and `high` a function that rises comes to this value."""
    if rising(low) >= value:
        return low
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def anchored(profile: Profile, client: Client, config: EngineConfig) -> Profile:
    """The profile with its serving costs measured anew: a shared machine is not as fast all the time."""
    costs = tuple(replace(costs, token_sec=0.0) for costs in profile.costs)
    bare = replace(profile, costs=costs, request_sec=0.0, turn_sec=0.0)
    return with_serving_costs(bare, client, config)


def _with_costs(profile: Profile, costs: StepCosts) -> Profile:
    return replace(
        profile, costs=tuple(costs if c.num_threads == costs.num_threads else c for c in profile.costs)
    )


def _request_sec(client: Client, config: EngineConfig) -> float:
    """To the queue, and from the first token to the client, while half of the slots are busy."""
    half = burst(config.max_running // 2, PROMPT_TOKENS, REPLY_TOKENS)
    probe = Ask(visitor=0, prompt_tokens=PROMPT_TOKENS, reply_tokens=2)
    probes = [Arrival(at=i * PROBE_GAP_SEC, ask=probe) for i in range(1, NUM_PROBES + 1)]
    met = client.play([*half, *probes], len(half) + NUM_PROBES)[len(half) :]
    return statistics.median(max(m.answer.first_token_sec - m.server_first_token_sec, 0.0) for m in met)


def _burst(num_slots: int) -> list[Arrival]:
    return burst(num_slots, PROMPT_TOKENS, REPLY_TOKENS)


def _real_burst_sec(client: Client, num_slots: int) -> float:
    return _burst_sec([met.answer for met in client.play(_burst(num_slots), num_slots)])


def _burst_sec(answers: Sequence[Answer]) -> float:
    return max(answer.ended_at for answer in answers)


def _busy_arrivals(full_tokens_per_sec: float, config: EngineConfig) -> list[Arrival]:
    most_reply_tokens = (config.context_len - PROMPT_TOKENS - ROOM) // LONGEST
    reply_tokens = max(min(BUSY_REPLY_TOKENS, most_reply_tokens), 1)
    rate = BUSY_LOAD * full_tokens_per_sec / reply_tokens
    return poisson_arrivals(rate, BUSY_SEC, PROMPT_TOKENS, reply_tokens, SPREAD, SEED, config.context_len)


def _token_sec(answers: Sequence[Answer]) -> float:
    """Mean of the tokens after the first."""
    num_tokens = sum(answer.reply_tokens - 1 for answer in answers)
    return sum(answer.total_sec - answer.first_token_sec for answer in answers) / max(num_tokens, 1)
