"""Runner whose steps compute nothing and take measured times on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.detokenizer import TextDecoder
from ..engine.request import GenerationRequest
from ..engine.runner import NewIds
from ..engine.sequence import Chunk, Matcher, Sequence
from .step_costs import StepCosts


class SimulatedClock:
    """Clock that only moves when it is told to; calling it returns the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds


class TimedRunner:
    """Runner of a simulation: the token after i is i + 1, and replies end by their length.

    :param is_alone: returns whether all other worker threads are idle
    :param lost_sec: returns the time that other work of the process took since the last call
    """

    eos_ids: frozenset[int] = frozenset()
    keeps_prefixes = True

    def __init__(
        self,
        costs: StepCosts,
        clock: SimulatedClock,
        is_alone: Callable[[], bool],
        lost_sec: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._costs = costs
        self._clock = clock
        self._is_alone = is_alone
        self._lost_sec = lost_sec

    def open(self) -> None: ...

    def share_cores(self, num_busy: int) -> None: ...

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        parts = [(chunk.num_tokens, chunk.sequence.num_cached) for chunk in chunks]
        self._take(self._costs.prefill_sec(*parts))
        new_ids = [_next_ids(chunk.sequence) if chunk.is_last else [] for chunk in chunks]
        return lambda: new_ids

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        num_rows = 1 + max(sequence.slot for sequence in sequences)
        key_lens = [1 + sequence.num_cached for sequence in sequences]
        self._take(self._costs.decode_sec(num_rows, key_lens))
        self._clock.advance(self._costs.token_sec * len(sequences) + self._lost_sec())
        return [_next_ids(sequence) for sequence in sequences]

    def copy_slot(self, source: int, target: int, length: int) -> None: ...

    def swap_slots(self, one: int, other: int, length: int) -> None: ...

    def matcher(self, grammar: str) -> Matcher:
        raise NotImplementedError("a simulation does not support grammars")

    def forget(self, sequence: Sequence) -> None: ...

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        return NoText()

    def close(self) -> None: ...

    def _take(self, seconds: float) -> None:
        self._clock.advance(seconds * (self._costs.alone_factor if self._is_alone() else 1.0))


def _next_ids(sequence: Sequence) -> list[int]:
    return [sequence.token_ids[-1] + 1]


class NoText:
    """Text decoder without text, as nobody reads the replies of a simulation."""

    def push(self, token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""
