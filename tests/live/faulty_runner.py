"""A runner whose faults are chosen over HTTP while its server works: POST /faults."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

from chatstream_flask.engine.runner import NewIds, Runner
from chatstream_flask.engine.sequence import Chunk, Sequence

MAX_STALL_SEC = 60.0
NOT_A_NUMBER = -1  # the id by which a runner says that the logits of a row are not numbers


@dataclass
class Faults:
    """The fault that all runners of an app have next."""

    kind: str = "none"  # or a name of `KINDS`, or "nan"
    where: str = "decode"  # or "prefill"
    seed: int | None = None  # only in a step with a request of this seed
    after: int = 0  # such steps that succeed first
    times: int | None = None  # how often it happens; None: always
    seconds: float = 0.0  # of a slow step

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._wakes = threading.Event()

    def set(self, **values: Any) -> None:
        """Wake up what stalls, and have this fault from now on; no values: none."""
        with self._lock:
            self._wakes.set()
            self._wakes = threading.Event()
            for field in fields(self):
                setattr(self, field.name, values.get(field.name, field.default))

    def is_due(self, where: str, sequences: list[Sequence]) -> bool:
        """Count a step; return whether it shall fail."""
        with self._lock:
            if self.kind == "none" or where != self.where or not any(map(self.is_meant, sequences)):
                return False
            self.after -= 1
            if self.after >= 0 or self.times == 0:
                return False
            if self.times is not None:
                self.times -= 1
            return True

    def is_meant(self, sequence: Sequence) -> bool:
        return self.seed in (None, sequence.params.seed)

    def happen(self) -> None:
        KINDS[self.kind](self)

    def wait(self, seconds: float) -> None:
        self._wakes.wait(seconds)


def raise_error(faults: Faults) -> None:
    raise RuntimeError("a fault on purpose")


def run_out_of_memory(faults: Faults) -> None:
    bytearray(1 << 62)


def kill_thread(faults: Faults) -> None:
    raise SystemExit  # no Exception: it ends the thread


KINDS: dict[str, Callable[[Faults], None]] = {
    "error": raise_error,
    "out of memory": run_out_of_memory,
    "kill": kill_thread,
    "stall": lambda faults: faults.wait(MAX_STALL_SEC),
    "slow": lambda faults: faults.wait(faults.seconds),
}


class FaultyRunner:
    """A runner, of a model or a mock, with the faults of its app."""

    def __init__(self, runner: Runner, faults: Faults) -> None:
        self._runner = runner
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        if self._faults.is_due("prefill", [chunk.sequence for chunk in chunks]):
            self._faults.happen()
        return self._runner.prefill(chunks)

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if not self._faults.is_due("decode", sequences):
            return self._runner.decode(sequences)
        if self._faults.kind != "nan":
            self._faults.happen()
            return self._runner.decode(sequences)
        ids = self._runner.decode(sequences)
        return [
            [NOT_A_NUMBER] if self._faults.is_meant(s) else row for s, row in zip(sequences, ids, strict=True)
        ]


def make_faulty(make_runner: Callable[..., Runner], faults: Faults) -> Callable[..., Runner]:
    def make(*args: int) -> Runner:
        return cast(Runner, FaultyRunner(make_runner(*args), faults))

    return make
