"""PrefillBudget: prompts cause only short pauses in running replies."""

from __future__ import annotations

import pytest

from chatstream_flask.engine.prefill_budget import MAX_PAUSE_SEC, PrefillBudget
from chatstream_flask.engine.scheduler import MIN_CHUNK_LEN

CHUNK = 256
MAX_PAUSE_STEPS = 1.71  # of the default priority


class Machine:
    """Steps of given durations, in the order of a worker."""

    def __init__(self, *, decode_sec: float, token_sec: float, priority: float = 0.63) -> None:
        self.budget = PrefillBudget(CHUNK, priority)
        self.decode_sec = decode_sec
        self.token_sec = token_sec

    def decode(self, num_steps: int = 5) -> None:
        for _ in range(num_steps):
            self.budget.record_step(self.decode_sec, 0, 1)

    def prefill(self, *, is_decoding: bool = True) -> float:
        """Compute as many prompt tokens as the budget allows; return the duration of the step."""
        num_tokens = self.budget.num_tokens(int(is_decoding))
        sec = num_tokens * self.token_sec + (self.decode_sec if is_decoding else 0.0)
        self.budget.record_step(sec, num_tokens, int(is_decoding))
        return sec


def test_alone_a_prompt_is_computed_in_whole_chunks() -> None:
    machine = Machine(decode_sec=0.005, token_sec=0.001)
    machine.decode()
    assert [machine.prefill(is_decoding=False) for _ in range(3)] == [CHUNK * 0.001] * 3


@pytest.mark.parametrize("decode_sec", [0.002, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("token_sec", [0.0001, 0.001, 0.01])
def test_beside_running_replies_it_takes_a_moment_or_a_few_steps(decode_sec: float, token_sec: float) -> None:
    machine = Machine(decode_sec=decode_sec, token_sec=token_sec)
    machine.decode()
    machine.prefill()  # measures the cost of a token
    most = max(MAX_PAUSE_SEC, MAX_PAUSE_STEPS * decode_sec, MIN_CHUNK_LEN * token_sec) + decode_sec
    assert all(machine.prefill() <= most * 1.01 for _ in range(20))


def test_tokens_that_cost_more_and_more_make_the_pieces_smaller() -> None:
    """As attention to a growing prefix does."""
    machine = Machine(decode_sec=0.005, token_sec=0.0005)
    machine.decode()
    budgets = []
    for _ in range(60):
        machine.prefill()
        machine.token_sec *= 1.02
        budgets.append(machine.budget.num_tokens(1))
    assert budgets[-1] < budgets[0] / 2
    assert machine.prefill() < 1.2 * (MAX_PAUSE_SEC + machine.decode_sec)


def test_prompts_that_cost_nothing_are_not_held_up() -> None:
    machine = Machine(decode_sec=0.1, token_sec=0.0)
    machine.decode()
    for _ in range(3):
        machine.prefill()
    assert machine.budget.num_tokens(1) == CHUNK


@pytest.mark.parametrize(("priority", "share"), [(0.0, 0.0), (0.3, 0.3), (0.9, 0.9)])
def test_priority_is_the_share_of_a_step_that_prompts_take(priority: float, share: float) -> None:
    machine = Machine(decode_sec=1.0, token_sec=0.001, priority=priority)
    machine.decode()
    machine.budget.max_tokens = 100_000
    machine.prefill(is_decoding=False)
    step_sec = machine.prefill()
    assert step_sec - 1.0 == pytest.approx(max(share * step_sec, MAX_PAUSE_SEC), rel=0.01)


def test_with_priority_1_prompts_come_first() -> None:
    machine = Machine(decode_sec=0.01, token_sec=0.1, priority=1.0)
    machine.decode()
    machine.prefill()
    assert machine.budget.num_tokens(8) == CHUNK


def test_a_few_replies_after_many_are_not_held_up_as_many_were() -> None:
    """The step of 16 rows, the last one without prompts, counted for one reply too."""
    budget = PrefillBudget(CHUNK)
    budget.record_step(0.02, 0, 1)
    budget.record_step(1.0, 0, 16)
    budget.record_step(0.32, 32, 0)
    assert budget.num_tokens(1) == MIN_CHUNK_LEN
    assert budget.num_tokens(16) == 170
