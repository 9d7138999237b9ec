"""Plan: the number of processes that serve a load within its goals, and the slots and threads of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..config import EngineConfig, check_int, check_number
from ..errors import ConfigError
from .load_point import LoadPoint, load_point
from .profile import Profile
from .simulation import Simulation
from .workload import SimulatedUsers, Workload

USABLE_MEMORY = 0.9  # fraction of a device for weights, keys and values; the rest is for activations
CURVE = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # simulated loads / the expected load
NUM_SEARCH_TURNS = 300  # turns of each simulation during the search
NUM_HALVINGS = 6
NUM_REPLY_TIMES = 5  # shortest duration of a simulation / duration of a reply when all slots are busy
WARM_UP_SHARE = 0.4  # duration of the warm-up / duration of what is measured
MAX_SLOTS = 256
MAX_BEYOND_MEASURED = 2  # most slots that are planned / slots that were measured


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Goals for the busiest hour."""

    max_first_token_sec: float = 3.0  # for 95 % of the turns, including the time in the queue
    max_refused_share: float = 0.01  # of the turns
    min_tokens_per_sec: float = 5.0  # for 95 % of the replies

    def __post_init__(self) -> None:
        check_number("the longest time to the first token", self.max_first_token_sec, 0.001, 3600)
        check_number("the largest share of refused turns", self.max_refused_share, 0, 1)
        check_number("the lowest tokens per second", self.min_tokens_per_sec, 0, 10**6)

    def are_met(self, point: LoadPoint) -> bool:
        """Return whether the statistics of a load meet all goals."""
        return (
            point.first_token_sec_p95 <= self.max_first_token_sec
            and point.refused_share <= self.max_refused_share
            and point.reply_tokens_per_sec_p5 >= self.min_tokens_per_sec
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Configuration of a process, and the highest load that it serves within the goals."""

    config: EngineConfig
    turns_per_sec: float

    def num_processes(self, turns_per_sec: float) -> int:
        """Return the number of processes needed for a load."""
        return math.ceil(turns_per_sec / self.turns_per_sec - 1e-9)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Result of planning: processes, their configuration, and statistics at several loads."""

    profile: Profile
    workload: Workload
    goals: Goals
    memory_bytes: int  # of one device
    max_slots: int  # slots that fit into the memory of a device
    num_processes: int  # each on its own device
    config: EngineConfig  # of each process
    tried: tuple[Candidate, ...]
    curve: tuple[LoadPoint, ...]  # of one process, at CURVE times its share of the load

    @property
    def point(self) -> LoadPoint:
        """Return the statistics at the expected load."""
        return self.curve[CURVE.index(1.0)]

    @property
    def used_bytes(self) -> int:
        """Return the memory of one device that weights, keys and values take."""
        num_slots = self.config.kv_cache_slots or self.config.max_running
        return self.profile.weights_bytes + num_slots * self.profile.slot_bytes(self.config.context_len)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a dict of JSON's types."""
        data = {name: getattr(self, name) for name in ("memory_bytes", "max_slots", "num_processes")}
        data |= {"used_bytes": self.used_bytes, "turns_per_sec": self.workload.turns_per_sec}
        data |= {name: asdict(getattr(self, name)) for name in ("workload", "goals")}
        data["config"] = self.config.to_dict()
        data["tried"] = [
            {"config": candidate.config.to_dict(), "turns_per_sec": candidate.turns_per_sec}
            for candidate in self.tried
        ]
        data["curve"] = [
            {"load": load} | asdict(point) for load, point in zip(CURVE, self.curve, strict=True)
        ]
        return data


def make_plan(
    profile: Profile,
    workload: Workload,
    goals: Goals,
    *,
    memory_bytes: int | None = None,
    num_slots: int | None = None,
    num_threads: int | None = None,
    max_queue_size: int | None = None,
    num_turns: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Find the configuration that needs the fewest processes for a workload.

    :param memory_bytes: of one device; None: as in the profile
    :param num_slots: None: the best
    :param num_threads: None: the best
    :param max_queue_size: None: as many as slots
    :param num_turns: turns of each simulation for the curve
    :param say: called with lines that tell the progress
    :raises ConfigError: the model does not fit, or no process of any size meets the goals
    """
    memory_bytes = profile.memory_bytes if memory_bytes is None else memory_bytes
    kv_bytes, context_len = profile.kv_bytes_per_token, workload.context_len
    max_slots = num_slots_that_fit(profile.weights_bytes, kv_bytes, memory_bytes, context_len)
    if workload.context_len > profile.context_len:
        raise ConfigError(
            f"the profile was measured with context_len={profile.context_len}: {workload.context_len} is more"
        )
    tried: list[Candidate] = []
    for config in _configs(profile, workload, max_slots, num_slots, num_threads, max_queue_size):
        best = max((candidate.turns_per_sec for candidate in tried), default=0.0)
        rate = max_turns_per_sec(profile, workload, goals, config, best, seed)
        if rate:
            tried.append(Candidate(config=config, turns_per_sec=rate))
        slots, threads = config.max_running, config.num_of_generation_threads
        say(f"{slots} slots, {threads} threads: {f'{rate:.3g} turns/s' if rate else 'no better'}")
    if not tried:
        raise ConfigError(
            "no configuration meets the goals, even for a single user, as the model is too slow on this "
            "device: raise --max-first-token-sec or lower --min-tokens-per-sec"
        )
    needed = workload.turns_per_sec
    chosen = min(tried, key=lambda it: (it.num_processes(needed), -it.turns_per_sec))
    num_processes = chosen.num_processes(needed)
    share = needed / num_processes
    curve = tuple(
        simulate(profile, workload.at_rate(share * load), chosen.config, num_turns, seed) for load in CURVE
    )
    return Plan(
        profile=profile,
        workload=workload,
        goals=goals,
        memory_bytes=memory_bytes,
        max_slots=max_slots,
        num_processes=num_processes,
        config=chosen.config,
        tried=tuple(tried),
        curve=curve,
    )


def simulate(
    profile: Profile, workload: Workload, config: EngineConfig, num_turns: int, seed: int
) -> LoadPoint:
    """Simulate one process at the workload's rate.

    :param num_turns: turns after the warm-up; more if that lasts less than NUM_REPLY_TIMES replies
    """
    simulation = Simulation(profile, config)
    reply_sec = workload.reply_tokens * _full_step_sec(profile, config)
    num_sec = max(num_turns / workload.turns_per_sec, NUM_REPLY_TIMES * reply_sec)
    warm_up_sec = WARM_UP_SHARE * num_sec
    SimulatedUsers(workload, simulation, seed).begin(warm_up_sec + num_sec)
    simulation.run()
    return load_point(simulation.results, warm_up_sec, warm_up_sec + num_sec)


def max_turns_per_sec(
    profile: Profile, workload: Workload, goals: Goals, config: EngineConfig, at_least: float, seed: int
) -> float:
    """Return the highest rate within the goals, by bisection; 0 if that is not above `at_least`."""

    def is_met(rate: float) -> bool:
        return goals.are_met(simulate(profile, workload.at_rate(rate), config, NUM_SEARCH_TURNS, seed))

    low, high = at_least, _upper_bound(profile, workload, config)
    if high <= low or not is_met(low or high / 2**NUM_HALVINGS):
        return 0.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_met(middle) else (low, middle)
    return low if low > at_least else 0.0


def _upper_bound(profile: Profile, workload: Workload, config: EngineConfig) -> float:
    """Return the turns per second of full slots if prefill took no time."""
    slots = config.max_running
    return slots / max(_full_step_sec(profile, config), 1e-6) / workload.reply_tokens


def _full_step_sec(profile: Profile, config: EngineConfig) -> float:
    if profile.mock_sec_per_token is not None:
        return profile.mock_sec_per_token
    costs = profile.costs_of(config.num_of_generation_threads)
    num_rows = math.ceil(config.max_running / config.num_of_generation_threads)
    return costs.decode_sec(num_rows, [1]) + costs.token_sec * num_rows


def num_slots_that_fit(
    weights_bytes: int, kv_bytes_per_token: int, memory_bytes: int, context_len: int
) -> int:
    """Return the number of slots that fit into a device beside the weights.

    :raises ConfigError: not even one slot fits
    """
    check_int("memory", memory_bytes, 1)
    slot_bytes = kv_bytes_per_token * (context_len + 1)  # one scratch position for padding
    free = int(memory_bytes * USABLE_MEMORY) - weights_bytes
    num_slots = free // slot_bytes if slot_bytes else MAX_SLOTS
    if num_slots < 1:
        raise ConfigError(
            f"the model does not fit: it needs {gib(weights_bytes)} for weights and {gib(slot_bytes)} for a "
            f"slot of {context_len} tokens, but {USABLE_MEMORY:.0%} of {gib(memory_bytes)} can be used"
        )
    return num_slots


def gib(num_bytes: int) -> str:
    """Return a size in GiB with three digits."""
    return f"{num_bytes / 2**30:.3g} GiB"


def _configs(
    profile: Profile,
    workload: Workload,
    max_slots: int,
    num_slots: int | None,
    num_threads: int | None,
    max_queue_size: int | None,
) -> Iterator[EngineConfig]:
    if num_slots is not None:
        check_int("slots", num_slots, 1, max_slots)
    for threads in profile.thread_counts if num_threads is None else [num_threads]:
        highest = min(max_slots, MAX_SLOTS)
        if profile.costs:
            measured = max(rows for rows, _, _ in profile.costs_of(threads).decode)
            highest = min(highest, measured * threads * MAX_BEYOND_MEASURED)
        powers = [2**i for i in range(MAX_SLOTS.bit_length()) if threads <= 2**i <= highest]
        for slots in powers if num_slots is None else [num_slots]:
            yield EngineConfig(
                max_running=slots,
                max_queue_size=slots if max_queue_size is None else max_queue_size,
                num_of_generation_threads=threads,
                context_len=workload.context_len,
                prefill_chunk_len=profile.prefill_chunk_len,
            )
