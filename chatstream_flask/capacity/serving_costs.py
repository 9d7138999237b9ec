"""What tokens and turns cost beyond the steps of the model, measured on a real server with real clients."""

from __future__ import annotations

import statistics
from dataclasses import replace

from ..config import EngineConfig
from .load_client import Arrival, LoadClient, burst
from .profile import Profile
from .simulation import Ask, Simulation
from .step_costs import StepCosts

PROMPT_TOKENS = 32
REPLY_TOKENS = 64
NUM_ROUNDS = 5
NUM_TURNS = 6  # of each client, one after the other
SHORT_REPLY_TOKENS = 8
NUM_PROBES = 8  # turns whose way to the queue and back is measured
PROBE_GAP_SEC = 0.05


def with_serving_costs(profile: Profile, client: LoadClient, config: EngineConfig) -> Profile:
    """The profile with `request_sec` and `turn_sec`, and `token_sec` for the config's number of threads.

    As many clients as slots ask for one long reply each; then as many as run and wait ask for short ones, so
    that no slot waits for a client. What the server needs longer than the simulation is the price.
    """
    client.play(burst(1, PROMPT_TOKENS, REPLY_TOKENS), 1)  # the first request pays for starting up
    profile = replace(profile, request_sec=_request_sec(client, config))
    if profile.mock_sec_per_token is not None:
        return profile
    num_slots, threads = config.num_of_concurrent_executions, config.num_of_generation_threads
    costs = profile.costs_of(threads)
    real_sec = _real_sec(client, num_slots, 1, REPLY_TOKENS)
    simulated_sec = _simulated_sec(profile, config, num_slots, 1, REPLY_TOKENS)
    if real_sec < simulated_sec:  # the machine had more to do while the steps were measured
        costs = costs.scaled(real_sec / simulated_sec)
        profile = _with_costs(profile, costs)
        simulated_sec = real_sec
    num_clients = num_slots + config.max_queue_size
    short_sec = _real_sec(client, num_clients, NUM_TURNS, SHORT_REPLY_TOKENS)
    short_sec -= _simulated_sec(profile, config, num_clients, NUM_TURNS, SHORT_REPLY_TOKENS)
    turns, short_turns = num_slots / threads, num_clients * NUM_TURNS / threads
    token_sec, turn_sec = solve(
        (turns * REPLY_TOKENS, turns, real_sec - simulated_sec),
        (short_turns * SHORT_REPLY_TOKENS, short_turns, short_sec),
    )
    return replace(_with_costs(profile, replace(costs, token_sec=token_sec)), turn_sec=turn_sec)


def anchored(profile: Profile, client: LoadClient, config: EngineConfig) -> Profile:
    """The profile with its serving costs measured anew: a shared machine is not as fast all the time."""
    costs = tuple(replace(costs, token_sec=0.0) for costs in profile.costs)
    bare = replace(profile, costs=costs, request_sec=0.0, turn_sec=0.0)
    return with_serving_costs(bare, client, config)


def _with_costs(profile: Profile, costs: StepCosts) -> Profile:
    return replace(
        profile, costs=tuple(costs if c.num_threads == costs.num_threads else c for c in profile.costs)
    )


Excess = tuple[float, float, float]  # tokens and turns of one thread, and what they cost together in seconds


def solve(long: Excess, short: Excess) -> tuple[float, float]:
    """Seconds for a token and for a turn, none negative."""
    (tokens, turns, sec), (short_tokens, short_turns, short_sec) = long, short
    determinant = tokens * short_turns - short_tokens * turns
    turn_sec = max((tokens * short_sec - short_tokens * sec) / determinant, 0.0)
    token_sec = (sec - turns * turn_sec) / tokens
    if token_sec < 0:
        return 0.0, max(short_sec, 0.0) / short_turns
    return token_sec, turn_sec


def _request_sec(client: LoadClient, config: EngineConfig) -> float:
    """To the queue, and from the first token to the client, while half of the slots are busy."""
    half = burst(config.num_of_concurrent_executions // 2, PROMPT_TOKENS, REPLY_TOKENS)
    probe = Ask(visitor=0, prompt_tokens=PROMPT_TOKENS, reply_tokens=2)
    probes = [Arrival(at=i * PROBE_GAP_SEC, ask=probe) for i in range(1, NUM_PROBES + 1)]
    met = client.play([*half, *probes], len(half) + NUM_PROBES)[len(half) :]
    return statistics.median(max(m.answer.first_token_sec - m.server_first_token_sec, 0.0) for m in met)


def _real_sec(client: LoadClient, num_clients: int, num_turns: int, reply_tokens: int) -> float:
    ask = Ask(visitor=0, prompt_tokens=PROMPT_TOKENS, reply_tokens=reply_tokens)
    return statistics.median(client.play_in_turn(ask, num_clients, num_turns) for _ in range(NUM_ROUNDS))


def _simulated_sec(
    profile: Profile, config: EngineConfig, num_clients: int, num_turns: int, reply_tokens: int
) -> float:
    ask = Ask(visitor=0, prompt_tokens=PROMPT_TOKENS, reply_tokens=reply_tokens)
    return simulate_in_turn(Simulation(profile, config), ask, num_clients, num_turns)


def simulate_in_turn(simulation: Simulation, ask: Ask, num_clients: int, num_turns: int) -> float:
    """As `LoadClient.play_in_turn`."""

    def go_on(visitor: int, num_left: int) -> None:
        if num_left:  # every turn is a visitor of its own, as on the load server
            simulation.ask(
                replace(ask, visitor=visitor),
                lambda answer: simulation.at(
                    simulation.clock.now + simulation.request_sec,
                    lambda: go_on(visitor + num_clients, num_left - 1),
                ),
            )

    for visitor in range(num_clients):
        go_on(visitor, num_turns)
    simulation.run()
    return max(answer.ended_at for answer in simulation.answers)
