"""Calibration: how long the steps of a model take here, with each number of generation threads."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..config import SamplingParams
from ..engine.request import GenerationRequest
from ..engine.runner import Runner
from ..engine.sequence import Chunk, Sequence
from ..model_source import TransformersSource
from ..serving.limits import SWITCH_SEC
from .step_costs import StepCosts

SHORT = 64  # keys of the shortest rows
POINT_SEC = 1.0  # that each point is measured for
MIN_STEPS = 5
NUM_ROUNDS = 5  # over all points, so that a disturbance of seconds does not hit all samples of one
WAIT_SEC = 600.0


def measure_steps(source: TransformersSource, num_threads: int, max_slots: int) -> StepCosts:
    """All threads measure the same point at the same time, as they step when there is much to do."""
    num_rows = max(max_slots // num_threads, 1)
    rows = [r for r in (1, 2, 4, 8, 16, 32, 64, 128) if r < num_rows] + [num_rows]
    lengths = sorted({min(SHORT, source.context_len), source.context_len // 2, source.context_len - 1})
    decode = [(r, length) for r in rows for length in lengths]
    prefill = _prefill_points(source)
    bench = StepBench([source.make_runner(num_rows, num_threads, 0) for _ in range(num_threads)])
    switch_sec = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SEC)
    try:
        steps = bench.measure(decode, decode_step) + bench.measure(prefill, prefill_step)
        middle = [decode[len(decode) // 2]]
        alone = bench.measure(middle, decode_step, alone=True)[0] if num_threads > 1 else 1.0
    finally:
        sys.setswitchinterval(switch_sec)
        bench.close()
    together = steps[len(decode) // 2] if num_threads > 1 else 1.0
    return StepCosts(
        num_threads=num_threads,
        decode=tuple((*point, sec) for point, sec in zip(decode, steps, strict=False)),
        prefill=tuple((*point, sec) for point, sec in zip(prefill, steps[len(decode) :], strict=True)),
        alone_factor=min(max(alone / together, 0.01), 1.0),
        is_padded=source.is_padded,
        packs_prompts=source.packs_prompts,
    )


def _prefill_points(source: TransformersSource) -> list[tuple[int, int]]:
    longest = min(source.prefill_chunk_len, source.context_len - 1)
    flat = [(n, 0) for n in (1, 16, 64, 128) if n < longest] + [(longest, 0)]
    before = source.context_len - 1 - longest
    return flat + ([(longest, before)] if before > 0 else [])


def decode_step(runner: Runner, num_rows: int, key_len: int) -> Callable[[], object]:
    sequences = [_sequence(slot, key_len, key_len - 1) for slot in range(num_rows)]
    return lambda: runner.decode(sequences)


def prefill_step(runner: Runner, num_tokens: int, num_cached: int) -> Callable[[], object]:
    sequence = _sequence(0, num_cached + num_tokens, num_cached)
    return lambda: runner.prefill([Chunk(sequence, num_tokens)])()


def _sequence(slot: int, num_tokens: int, num_cached: int) -> Sequence:
    """What is in the slot does not matter for the time that it takes."""
    request = GenerationRequest([1] * num_tokens, SamplingParams(seed=0))
    sequence = Sequence(request, slot, None)  # type: ignore[arg-type]
    sequence.num_cached = num_cached
    return sequence


class StepBench:
    """Open runners, each in a thread of its own."""

    def __init__(self, runners: list[Runner]) -> None:
        self._runners = runners
        self._threads = [ThreadPoolExecutor(1, "chatstream-calibration") for _ in runners]
        for opening in [t.submit(r.open) for t, r in zip(self._threads, runners, strict=True)]:
            opening.result()

    def close(self) -> None:
        for thread, runner in zip(self._threads, self._runners, strict=True):
            thread.submit(runner.close).result()
            thread.shutdown()

    def measure(
        self,
        points: list[tuple[int, int]],
        make_step: Callable[[Runner, int, int], Callable[[], object]],
        *,
        alone: bool = False,
    ) -> list[float]:
        """Median seconds of a step at each point."""
        rounds = [[self._measure(point, make_step, alone) for point in points] for _ in range(NUM_ROUNDS)]
        return [statistics.median(samples) for samples in zip(*rounds, strict=True)]

    def _measure(
        self,
        point: tuple[int, int],
        make_step: Callable[[Runner, int, int], Callable[[], object]],
        alone: bool,
    ) -> float:
        runners = self._runners[:1] if alone else self._runners
        start = threading.Barrier(len(runners))
        running = [
            thread.submit(_time, runner, make_step(runner, *point), start)
            for thread, runner in zip(self._threads, runners, strict=False)
        ]
        return statistics.mean(future.result() for future in running)


def _time(runner: Runner, step: Callable[[], object], start: threading.Barrier) -> float:
    runner.share_cores(start.parties)
    step()  # the first one of a shape may choose or compile kernels
    start.wait(WAIT_SEC)
    began, times = time.perf_counter(), list[float]()
    while len(times) < MIN_STEPS or time.perf_counter() - began < POINT_SEC / NUM_ROUNDS:
        at = time.perf_counter()
        step()
        times.append(time.perf_counter() - at)
    return statistics.median(times)
