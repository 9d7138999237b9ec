"""Profile: measurements of a model on a machine, saved as JSON so that planning needs neither."""

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
    """Sizes of a model, and the costs of its steps for each number of worker threads that was measured."""

    model: str
    device: str
    weights_bytes: int
    kv_bytes_per_token: int  # keys and values of one token in all layers
    memory_bytes: int  # total memory of the device
    context_len: int  # most tokens of prompt and reply together
    prefill_chunk_len: int
    request_sec: float  # from the client's request to the queue, plus from the first token to the client
    turn_sec: float = 0.0  # time that each request, also a refused one, takes from busy worker threads
    costs: tuple[StepCosts, ...] = ()  # empty for the mock
    mock_sec_per_token: float | None = None  # only for the mock, whose steps wait instead of computing

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
            raise ConfigError("a profile needs the costs of a step for at least one number of threads")

    @property
    def thread_counts(self) -> list[int]:
        """Return the numbers of worker threads that were measured."""
        return [costs.num_threads for costs in self.costs] or [1]

    def costs_of(self, num_threads: int) -> StepCosts:
        """Return the costs for a number of threads; raises ConfigError if that was not measured."""
        found = [costs for costs in self.costs if costs.num_threads == num_threads]
        if not found:
            known = ", ".join(map(str, self.thread_counts))
            raise ConfigError(f"the profile was measured with {known} worker threads, not {num_threads}")
        return found[0]

    def slot_bytes(self, context_len: int) -> int:
        """Return the memory that one slot takes."""
        return self.kv_bytes_per_token * (context_len + 1)  # one scratch position for padding

    def save(self, path: str) -> None:
        """Write the profile as JSON."""
        Path(path).write_text(
            json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: str) -> Profile:
        """Read a profile that `save` has written.

        :raises ConfigError: the file cannot be read, or its content is not a valid profile
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.from_dict(data)
        except (OSError, ValueError, TypeError) as error:  # ConfigError is a ValueError
            raise ConfigError(f"{path} is not a valid profile: {error}") from error

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Profile:
        """Return the profile of a JSON object; raises ConfigError if it is not valid."""
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ConfigError(f'expected an object with "format": {FORMAT}')
        check_names("field", data, cls)
        costs = data.pop("costs", [])
        for entry in costs:
            check_names("field of costs", entry, StepCosts)
            for name in ("decode", "prefill"):
                entry[name] = tuple(map(tuple, entry.get(name, ())))
        return cls(**data, costs=tuple(StepCosts(**entry) for entry in costs))
