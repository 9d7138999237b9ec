"""What a step costs more when its tokens are sent to clients, measured on a real server and a real load."""

from __future__ import annotations

import statistics
from dataclasses import replace

from ..config import EngineConfig
from .load_client import LoadClient, burst, play_simulated
from .profile import Profile
from .simulation import Answer, Simulation

PROMPT_TOKENS = 32
REPLY_TOKENS = 64
NUM_ROUNDS = 5
NUM_ALONE = 8  # turns on an idle server


def with_serving_costs(profile: Profile, client: LoadClient, config: EngineConfig) -> Profile:
    """The profile with `request_sec`, and `token_sec` for the config's number of threads.

    All slots begin at once; what the server needs longer than the simulation, its tokens have cost.
    """
    client.play(burst(1, PROMPT_TOKENS, REPLY_TOKENS), 1)  # the first request pays for starting up
    alone = [client.play(burst(1, PROMPT_TOKENS, 2), 1)[0] for _ in range(NUM_ALONE)]
    request_sec = statistics.median(met.answer.first_token_sec - met.server_first_token_sec for met in alone)
    profile = replace(profile, request_sec=max(request_sec, 0.0))
    num = config.num_of_concurrent_executions
    arrivals = burst(num, PROMPT_TOKENS, REPLY_TOKENS)
    real = [_last_end([met.answer for met in client.play(arrivals, num)]) for _ in range(NUM_ROUNDS)]
    if profile.mock_sec_per_token is not None:
        return profile
    simulated = _last_end(play_simulated(Simulation(profile, config), arrivals))
    threads = config.num_of_generation_threads
    excess = statistics.median(real) - simulated
    token_sec = max(excess, 0.0) / (REPLY_TOKENS * -(-num // threads))
    costs = [replace(c, token_sec=token_sec) if c.num_threads == threads else c for c in profile.costs]
    return replace(profile, costs=tuple(costs))


def _last_end(answers: list[Answer]) -> float:
    return max(answer.ended_at for answer in answers)
