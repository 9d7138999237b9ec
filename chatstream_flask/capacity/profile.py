"""Profile: what was measured of a model on a machine; kept as JSON, so that a plan needs neither."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import check_int, check_names, check_number
from ..errors import ConfigError
from .step_costs import StepCosts

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Profile:
    """For each number of generation threads that was tried, the costs of a step."""

    model: str
    device: str
    weights_bytes: int
    kv_bytes_per_token: int  # keys and values of one token in all layers
    memory_bytes: int  # of the device, in all
    context_len: int  # the most tokens of prompt and reply
    prefill_chunk_len: int
    request_sec: float  # from a client's request to the queue, and from a token to the client
    turn_sec: float = 0.0  # that the generation threads lose with each request, also a refused one
    costs: tuple[StepCosts, ...] = ()  # of a model
    mock_sec_per_token: float | None = None  # of the mock, whose steps wait for a clock

    def __post_init__(self) -> None:
        for name in ("weights_bytes", "kv_bytes_per_token"):
            check_int(name, getattr(self, name), 0)
        for name in ("memory_bytes", "context_len", "prefill_chunk_len"):
            check_int(name, getattr(self, name), 1)
        check_number("request_sec", self.request_sec, 0, 3600)
        check_number("turn_sec", self.turn_sec, 0, 3600)
        if self.mock_sec_per_token is not None:
            check_number("mock_sec_per_token", self.mock_sec_per_token, 0.0001, 3600)
        elif not self.costs:
            raise ConfigError("a profile needs the costs of a step, for one number of threads at least")

    @property
    def thread_counts(self) -> list[int]:
        return [costs.num_threads for costs in self.costs] or [1]

    def costs_of(self, num_threads: int) -> StepCosts:
        found = [costs for costs in self.costs if costs.num_threads == num_threads]
        if not found:
            known = ", ".join(map(str, self.thread_counts))
            raise ConfigError(f"the profile was measured with {known} generation threads, not {num_threads}")
        return found[0]

    def slot_bytes(self, context_len: int) -> int:
        return self.kv_bytes_per_token * (context_len + 1)  # one column is scratch

    def save(self, path: str) -> None:
        Path(path).write_text(
            json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: str) -> Profile:
        """:raises ConfigError: it cannot be read, or something in it is wrong"""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.of(data)
        except (OSError, ValueError, TypeError) as error:  # ConfigError is a ValueError
            raise ConfigError(f"{path} is no profile: {error}") from error

    @classmethod
    def of(cls, data: dict[str, Any]) -> Profile:
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ConfigError(f'it must be an object with "format": {FORMAT}')
        check_names("field", data, cls)
        costs = data.pop("costs", [])
        for entry in costs:
            check_names("field of costs", entry, StepCosts)
            for name in ("decode", "prefill"):
                entry[name] = tuple(map(tuple, entry.get(name, ())))
        return cls(**data, costs=tuple(StepCosts(**entry) for entry in costs))
