"""The number of CPU threads is the one measured to be fastest, and trials of other numbers cost little."""

from __future__ import annotations

from collections.abc import Callable

from fakes import FakeClock

from chatstream_flask.inference.thread_tuner import NUM_TRIED, PAUSE_FACTOR, ThreadTuner

Seconds = Callable[[int], float]  # number of threads -> duration of a forward pass


class Machine:
    """Simulates forward passes of given durations."""

    def __init__(self, most: int, seconds: Seconds) -> None:
        self.clock = FakeClock()
        self.tuner = ThreadTuner(most, self.clock)
        self.seconds = seconds

    def run(self, num_forwards: int, num_tokens: int = 8) -> list[int]:
        return [self.forward(num_tokens) for _ in range(num_forwards)]

    def forward(self, num_tokens: int) -> int:
        num_cores = self.tuner.begin(num_tokens, 100)
        self.clock.advance(self.seconds(num_cores))
        self.tuner.end()
        return num_cores


def quiet(num_cores: int) -> float:
    return 0.02 / num_cores


def busy(num_cores: int) -> float:
    return 0.02 if num_cores == 1 else 0.4


def test_all_threads_are_used_on_an_idle_machine() -> None:
    machine = Machine(4, quiet)
    assert machine.run(3) == [4, 4, 4]
    later = machine.run(2000)
    assert set(later) == {2, 4}
    assert later.count(2) < 0.02 * len(later)


def test_one_thread_is_used_where_another_program_holds_a_core() -> None:
    machine = Machine(2, busy)
    machine.run(10)
    assert machine.run(20) == [1] * 20


def test_one_slow_forward_changes_nothing() -> None:
    machine = Machine(2, quiet)
    machine.run(20)
    machine.seconds = busy
    machine.run(1)
    machine.seconds = quiet
    assert machine.run(20) == [2] * 20


def test_idle_cores_are_woken_before_they_are_measured() -> None:
    """Cores that were idle for a while are slower at the first forward pass."""
    last = 1

    def sleepy(num_cores: int) -> float:
        nonlocal last
        is_woken, last = num_cores > last, num_cores
        return quiet(num_cores) + (0.02 if is_woken else 0.0)

    machine = Machine(2, busy)
    machine.run(20)
    machine.seconds = sleepy
    assert set(machine.run(15_000)[-9:]) == {2}


def test_trials_of_a_far_slower_number_cost_little() -> None:
    machine = Machine(2, busy)
    machine.run(10)
    began = machine.clock()
    lost = machine.run(5000).count(2) * (busy(2) - busy(1))
    assert 0 < lost <= (machine.clock() - began) / PAUSE_FACTOR * 1.1


def test_a_change_of_the_machine_is_noticed_both_ways() -> None:
    machine = Machine(2, quiet)
    machine.run(20)
    machine.seconds = busy
    machine.run(10)
    assert machine.tuner.begin(8, 100) == 1
    machine.seconds = quiet
    machine.run(15_000)  # five minutes, the longest pause between two trials
    assert machine.run(9).count(2) >= 8


def test_the_first_forwards_of_a_size_do_not_count() -> None:
    """The first ones may choose kernels, and take ten times as long."""
    machine = Machine(2, lambda num_cores: 1.0)
    machine.run(2)
    machine.seconds = quiet
    assert machine.run(50).count(2) >= 50 - NUM_TRIED


def test_a_new_size_starts_with_the_previous_best() -> None:
    machine = Machine(2, busy)
    machine.run(10)
    assert machine.run(1, num_tokens=64) == [1]


def test_the_number_of_shared_cores_may_change() -> None:
    machine = Machine(4, quiet)
    machine.run(20)
    machine.tuner.max_threads = 2
    assert set(machine.run(20)) <= {1, 2}
    machine.tuner.max_threads = 1
    assert set(machine.run(20)) == {1}
    machine.tuner.max_threads = 4
    assert machine.run(1) == [4]
