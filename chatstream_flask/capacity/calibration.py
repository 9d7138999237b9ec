"""Calibration: measure how long the steps of a model take on this machine."""

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

MIN_KEY_LEN = 64  # shortest key length that is measured
POINT_SEC = 1.0  # measuring time of each point
MIN_STEPS = 5
NUM_ROUNDS = 5  # each measures all points, so that a short disturbance affects one sample of a point at most
WAIT_SEC = 600.0


def measure_steps(source: TransformersSource, num_threads: int, max_slots: int) -> StepCosts:
    """Return the costs of a step while `num_threads` worker threads are all busy.

    All threads measure the same point at the same time, as they do under load.
    """
    num_rows = max(max_slots // num_threads, 1)
    rows = [r for r in (1, 2, 4, 8, 16, 32, 64, 128) if r < num_rows] + [num_rows]
    lengths = sorted({min(MIN_KEY_LEN, source.context_len), source.context_len // 2, source.context_len - 1})
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
    """Return a function that computes one decode step of `num_rows` sequences."""
    sequences = [_sequence(slot, key_len, key_len - 1) for slot in range(num_rows)]
    return lambda: runner.decode(sequences)


def prefill_step(runner: Runner, num_tokens: int, num_cached: int) -> Callable[[], object]:
    """Return a function that computes one prompt chunk after `num_cached` tokens."""
    sequence = _sequence(0, num_cached + num_tokens, num_cached)
    return lambda: runner.prefill([Chunk(sequence, num_tokens)])()


def _sequence(slot: int, num_tokens: int, num_cached: int) -> Sequence:
    """Return a sequence of arbitrary tokens, as the time of a step does not depend on them."""
    request = GenerationRequest([1] * num_tokens, SamplingParams(seed=0))
    sequence = Sequence(request, slot, None)  # type: ignore[arg-type]
    sequence.num_cached = num_cached
    return sequence


class StepBench:
    """Open runners, each in its own thread, whose steps are timed."""

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
        """Return the median time in seconds of a step at each point.

        :param alone: use one thread while the others are idle
        """
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
    step()  # the first step of a shape may tune or compile kernels
    start.wait(WAIT_SEC)
    began, times = time.perf_counter(), list[float]()
    while len(times) < MIN_STEPS or time.perf_counter() - began < POINT_SEC / NUM_ROUNDS:
        at = time.perf_counter()
        step()
        times.append(time.perf_counter() - at)
    return statistics.median(times)
