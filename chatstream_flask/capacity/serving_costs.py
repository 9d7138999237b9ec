"""Costs of serving beyond the steps of the model, measured with clients of a real server."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ..config import EngineConfig
from .arrivals import LENGTH_MARGIN, MAX_LENGTH_FACTOR, Arrival, burst, play_simulated, poisson_arrivals
from .load_client import ClientResult
from .profile import Profile
from .simulation import Simulation, TurnRequest, TurnResult
from .step_costs import StepCosts

PROMPT_TOKENS = 32
REPLY_TOKENS = 64
NUM_ROUNDS = 5
BUSY_LOAD = 0.9  # turns per second / those of full slots
BUSY_SEC = 10.0
BUSY_REPLY_TOKENS = 32
MAX_REPLY_TOKENS = MAX_LENGTH_FACTOR * BUSY_REPLY_TOKENS  # the server must be started with at least this
SPREAD = 0.5  # standard deviation / mean of the lengths
SEED = 1000  # other arrivals than in any check
MAX_TURN_SEC = 0.5
MIN_PROMPT_FACTOR, MAX_PROMPT_FACTOR = 0.5, 4.0  # prefill time under load / alone
NUM_HALVINGS = 10
NUM_FITS = 2
NUM_PROBES = 8  # turns with which `request_sec` is measured
PROBE_GAP_SEC = 0.05


class Client(Protocol):
    """Client that sends a load to a server."""

    def play(self, arrivals: Sequence[Arrival], max_open: int) -> list[ClientResult]:
        """Return the results in the order of the arrivals; at most `max_open` requests run at once."""


def with_serving_costs(profile: Profile, client: Client, config: EngineConfig) -> Profile:
    """Return the profile with the costs of serving, for the config's number of threads.

    First `request_sec` is measured. Then as many clients as slots request one long reply each: `token_sec` is
    the time per token that the simulation of this load lacks. Last, clients arrive at random at nearly the
    highest possible rate: the prefill factor and `turn_sec` are chosen so that the simulation of this load
    takes the measured time per prompt and per token.
    """
    client.play(burst(1, PROMPT_TOKENS, REPLY_TOKENS), 1)  # the first request is slower than others
    profile = replace(profile, request_sec=_request_sec(client, config))
    if profile.mock_sec_per_token is not None:
        return profile
    num_slots, threads = config.max_running, config.num_of_generation_threads
    costs = profile.costs_of(threads)
    real_sec = statistics.median(_real_burst_sec(client, num_slots) for _ in range(NUM_ROUNDS))
    simulated_sec = _burst_sec(play_simulated(Simulation(profile, config), _burst(num_slots)))
    if real_sec < simulated_sec:  # the machine was busier while the steps were measured
        costs = costs.scaled(real_sec / simulated_sec)
        profile = _with_costs(profile, costs)
    arrivals = _busy_arrivals(num_slots / real_sec * REPLY_TOKENS, config)
    seen = [it for it in client.play(arrivals, len(arrivals)) if not it.result.is_refused]
    real_token_sec = _token_sec([it.result for it in seen])
    real_prompt_sec = statistics.mean(it.server_first_token_sec - it.result.queue_sec for it in seen)

    def with_costs(prompt_factor: float, turn_sec: float) -> Profile:
        free = costs.scaled(1.0, prompt_factor)
        without = replace(_with_costs(profile, free), turn_sec=turn_sec)
        missing_sec = real_sec - _burst_sec(play_simulated(Simulation(without, config), _burst(num_slots)))
        num_tokens = num_slots / threads * REPLY_TOKENS
        return _with_costs(without, replace(free, token_sec=max(missing_sec, 0.0) / num_tokens))

    def simulated(prompt_factor: float, turn_sec: float) -> list[TurnResult]:
        results = play_simulated(Simulation(with_costs(prompt_factor, turn_sec), config), arrivals)
        return [result for result in results if not result.is_refused]

    def prompt_sec(prompt_factor: float) -> float:
        results = simulated(prompt_factor, turn_sec)
        return statistics.mean(a.first_token_sec - a.queue_sec for a in results) - profile.request_sec

    def token_sec(turn_sec: float) -> float:
        return _token_sec(simulated(prompt_factor, turn_sec))

    prompt_factor, turn_sec = 1.0, 0.0
    for _ in range(NUM_FITS):
        prompt_factor = bisect_increasing(prompt_sec, real_prompt_sec, MIN_PROMPT_FACTOR, MAX_PROMPT_FACTOR)
        turn_sec = bisect_increasing(token_sec, real_token_sec, 0.0, MAX_TURN_SEC)
    return with_costs(prompt_factor, turn_sec)


def bisect_increasing(function: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Bisect an increasing function for `value` on [low, high]."""
    if function(low) >= value:
        return low
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return (low + high) / 2


def with_new_serving_costs(profile: Profile, client: Client, config: EngineConfig) -> Profile:
    """Return the profile with its serving costs measured again, as the speed of a shared machine varies."""
    costs = tuple(replace(costs, token_sec=0.0) for costs in profile.costs)
    bare = replace(profile, costs=costs, request_sec=0.0, turn_sec=0.0)
    return with_serving_costs(bare, client, config)


def _with_costs(profile: Profile, costs: StepCosts) -> Profile:
    return replace(
        profile, costs=tuple(costs if c.num_threads == costs.num_threads else c for c in profile.costs)
    )


def _request_sec(client: Client, config: EngineConfig) -> float:
    """Measure the time outside the engine until the first token, while half of the slots are busy."""
    half = burst(config.max_running // 2, PROMPT_TOKENS, REPLY_TOKENS)
    probe = TurnRequest(visitor=0, prompt_tokens=PROMPT_TOKENS, reply_tokens=2)
    probes = [Arrival(at=i * PROBE_GAP_SEC, turn=probe) for i in range(1, NUM_PROBES + 1)]
    seen = client.play([*half, *probes], len(half) + NUM_PROBES)[len(half) :]
    return statistics.median(max(m.result.first_token_sec - m.server_first_token_sec, 0.0) for m in seen)


def _burst(num_slots: int) -> list[Arrival]:
    return burst(num_slots, PROMPT_TOKENS, REPLY_TOKENS)


def _real_burst_sec(client: Client, num_slots: int) -> float:
    return _burst_sec([seen.result for seen in client.play(_burst(num_slots), num_slots)])


def _burst_sec(results: Sequence[TurnResult]) -> float:
    return max(result.ended_at for result in results)


def _busy_arrivals(full_tokens_per_sec: float, config: EngineConfig) -> list[Arrival]:
    most_reply_tokens = (config.context_len - PROMPT_TOKENS - LENGTH_MARGIN) // MAX_LENGTH_FACTOR
    reply_tokens = max(min(BUSY_REPLY_TOKENS, most_reply_tokens), 1)
    rate = BUSY_LOAD * full_tokens_per_sec / reply_tokens
    return poisson_arrivals(rate, BUSY_SEC, PROMPT_TOKENS, reply_tokens, SPREAD, SEED, config.context_len)


def _token_sec(results: Sequence[TurnResult]) -> float:
    """Return the mean time per token after the first."""
    num_tokens = sum(result.reply_tokens - 1 for result in results)
    return sum(result.total_sec - result.first_token_sec for result in results) / max(num_tokens, 1)
