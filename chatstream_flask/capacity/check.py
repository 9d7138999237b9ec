"""Check of the simulation against a real server under the same load."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from ..config import EngineConfig
from .arrivals import burst, play_simulated, poisson_arrivals
from .load_client import LoadClient
from .load_point import LoadPoint, load_point
from .profile import Profile
from .serving_costs import with_new_serving_costs
from .simulation import Simulation

LOADS = (0.5, 0.8, 1.5)  # turns per second / those of full slots
MEASURES = (  # attributes of LoadPoint, and the largest difference that is ignored
    ("tokens_per_sec", 0.0),
    ("refused_share", 0.03),
    ("queue_sec_p50", 0.03),
    ("queue_sec_p95", 0.03),
    ("first_token_sec_p50", 0.03),
    ("first_token_sec_p95", 0.03),
    ("total_sec_p50", 0.03),
    ("total_sec_p95", 0.03),
)
TOLERANCE = 0.2


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure at one load, predicted and real; medians over the repeats."""

    load: float  # turns per second / those of full slots
    measure: str
    predicted: float
    real: float
    negligible: float

    @property
    def error(self) -> float:
        """Return the relative error of the prediction; 0 if the difference is negligible."""
        difference = self.predicted - self.real
        return 0.0 if abs(difference) <= self.negligible else difference / max(self.real, 1e-9)

    @property
    def is_within(self) -> bool:
        return abs(self.error) <= TOLERANCE


def compare(
    profile: Profile,
    client: LoadClient,
    config: EngineConfig,
    *,
    prompt_tokens: int = 64,
    reply_tokens: int = 48,
    spread: float = 0.5,
    num_sec: float = 20.0,
    num_repeats: int = 3,
    say: Callable[[str], None] = lambda text: None,
) -> list[Comparison]:
    """Compare simulation and server at several loads.

    In each repeat both get the same random arrivals, and the serving costs are measured again just before.

    :param config: as the server was started with
    """
    num_slots = config.max_running
    full = play_simulated(Simulation(profile, config), burst(num_slots, prompt_tokens, reply_tokens))
    best_turns_per_sec = num_slots / max(result.ended_at for result in full)
    comparisons = []
    for load in LOADS:
        points: list[tuple[LoadPoint, LoadPoint]] = []
        for repeat in range(num_repeats):
            rate = load * best_turns_per_sec
            arrivals = poisson_arrivals(
                rate, num_sec, prompt_tokens, reply_tokens, spread, repeat, config.context_len
            )
            profile = with_new_serving_costs(profile, client, config)
            predicted = play_simulated(Simulation(profile, config), arrivals)
            max_open = num_slots + config.max_queue_size + 32
            real = [seen.result for seen in client.play(arrivals, max_open)]
            points.append((load_point(predicted, 0.0, num_sec), load_point(real, 0.0, num_sec)))
            say(f"load {load}, {len(arrivals)} turns: {_shown(points[-1])}")
        comparisons += [_comparison(load, points, name, negligible) for name, negligible in MEASURES]
    return comparisons


def _comparison(
    load: float, points: list[tuple[LoadPoint, LoadPoint]], name: str, negligible: float
) -> Comparison:
    predicted = statistics.median(getattr(point, name) for point, _ in points)
    real = statistics.median(getattr(point, name) for _, point in points)
    return Comparison(load=load, measure=name, predicted=predicted, real=real, negligible=negligible)


def _shown(points: tuple[LoadPoint, LoadPoint]) -> str:
    predicted, real = points
    return f"{predicted.tokens_per_sec:.0f} tokens/s predicted, {real.tokens_per_sec:.0f} real"
