"""The number of draft tokens is the one measured to be fastest, and trials of other numbers cost little."""

from __future__ import annotations

from collections.abc import Callable

from fakes import FakeClock

from chatstream_flask.inference.draft_length_tuner import (
    MAX_TOKENS,
    MIN_PAUSE_SEC,
    PAUSE_FACTOR,
    DraftLengthTuner,
)

Seconds = Callable[[int], float]  # number of drafts -> duration of the step


class Machine:
    """Simulates steps of given durations; `share` is the probability that a draft is right."""

    def __init__(self, seconds: Seconds, share: float = 0.8, most: int = 8) -> None:
        self.clock = FakeClock()
        self.tuner = DraftLengthTuner(most, self.clock)
        self.seconds = seconds
        self.share = share

    def run(self, num_steps: int, num_rows: int = 1, num_proposed: int = 8) -> list[int]:
        return [self.step(num_rows, num_proposed) for _ in range(num_steps)]

    def step(self, num_rows: int, num_proposed: int) -> int:
        num = self.tuner.begin(num_rows, 100, num_proposed, lambda num: num_rows * self._tokens(num))
        self.clock.advance(self.seconds(num))
        self.tuner.end()
        return num

    def _tokens(self, num: int) -> float:
        return sum(self.share**i for i in range(num + 1))


def by_weights(num: int) -> float:
    """Return the duration of a step bound by memory bandwidth."""
    return 0.02 + 0.0005 * num


def by_products(num: int) -> float:
    """Return the duration of a step bound by computation."""
    return 0.02 * (1 + num)


def test_all_drafts_are_used_where_tokens_cost_little() -> None:
    machine = Machine(by_weights)
    first = machine.run(9)
    assert first == sorted(first) and set(first) == {0, 1, 2, 4, 8}, "the number rises, with two steps each"
    later = machine.run(2000)
    assert later.count(8) > 0.97 * len(later)


def test_no_drafts_are_used_where_tokens_cost_much() -> None:
    machine = Machine(by_products)
    assert max(machine.run(10)) == 1
    later = machine.run(2000)
    assert later.count(0) > 0.98 * len(later) and set(later) == {0, 1}


def test_drafts_that_are_rarely_right_are_never_tried() -> None:
    assert set(Machine(by_weights, share=0.03).run(1000)) == {0}


def test_few_drafts_are_used_where_many_cost_too_much() -> None:
    machine = Machine(lambda num: 0.02 if num <= 2 else 0.01 * num)
    machine.run(20)
    later = machine.run(2000)
    assert later.count(2) > 0.96 * len(later)


def test_a_change_of_the_acceptance_rate_needs_no_trial() -> None:
    machine = Machine(by_weights)
    machine.run(20)
    machine.share = 0.02
    assert set(machine.run(20)) == {0}
    machine.share = 0.9
    assert set(machine.run(20)) == {8}


def test_trials_cost_little() -> None:
    machine = Machine(lambda num: 0.02 if num == 0 else 0.2, share=0.99)
    machine.run(10)
    began = machine.clock()
    tries = 5000 - machine.run(5000).count(0)
    assert 0 < 0.2 * tries <= (machine.clock() - began) / PAUSE_FACTOR * 1.1


def test_a_change_of_the_machine_is_noticed_both_ways() -> None:
    machine = Machine(by_weights)
    machine.run(20)
    machine.seconds = by_products
    machine.run(200)
    assert machine.run(20).count(0) >= 19
    machine.seconds = by_weights
    machine.run(20 * int(MIN_PAUSE_SEC / by_weights(0)))
    assert machine.run(20).count(8) >= 19


def test_one_slow_step_changes_nothing() -> None:
    machine = Machine(by_weights)
    machine.run(20)
    machine.seconds = lambda num: 5.0
    machine.run(1)
    machine.seconds = by_weights
    assert machine.run(30).count(8) >= 28


def test_a_slow_step_without_drafts_is_measured_again() -> None:
    """Otherwise speculation would continue although it does not pay off."""
    machine = Machine(lambda num: 5.0)
    machine.run(2)
    machine.seconds = by_products
    machine.run(4 * int(MIN_PAUSE_SEC / 0.02))
    assert machine.run(20).count(0) >= 19


def test_each_number_of_rows_is_measured_separately() -> None:
    machine = Machine(by_weights)
    machine.run(20)
    machine.seconds = by_products
    machine.run(20, num_rows=8)
    assert machine.run(20, num_rows=8).count(0) >= 19
    machine.seconds = by_weights
    assert machine.run(20).count(8) >= 19


def test_a_step_never_grows_too_large() -> None:
    machine = Machine(lambda num: 0.02)
    for num_rows in (1, 8, 30, 64, 65, 500):
        assert max(machine.run(30, num_rows)) * num_rows <= max(MAX_TOKENS - num_rows, 0)


def test_at_most_the_proposed_drafts_are_used() -> None:
    machine = Machine(by_weights, most=6)
    assert max(machine.run(30)) == 6
    assert max(machine.run(30, num_proposed=3)) == 2
    assert set(machine.run(30, num_proposed=0)) == {0}
