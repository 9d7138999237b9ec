"""The load tests' judges of replies and their figures; `live/test_loadtest.py` runs them."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from loadtest.arrival import PROFILES, poisson_arrivals
from loadtest.growth import growth_goals
from loadtest.options import parse
from loadtest.overload import goals_of
from loadtest.plan import Plan
from loadtest.record import FORGOTTEN, MIXED_UP, RIGHT, WRONG, Phase, Record, read_phase, to_line
from loadtest.result import Result, Run
from loadtest.script import EchoScript, NameScript
from loadtest.summary import delays_sec, distribution, summarise, tokens_between, words_per_sec
from loadtest.visitor import Habits


def reply(sent_at: float, *arrivals: tuple[float, int], verdict: str = RIGHT) -> Record:
    return Record(
        visitor="v",
        action="ask",
        sent_at=sent_at,
        started_at=sent_at + 0.1,
        ended_at=arrivals[-1][0] if arrivals else sent_at + 0.02,
        arrivals=list(arrivals),
        num_tokens=sum(words for _, words in arrivals),
        verdict=verdict,
    )


# -- right and wrong answers -----------------------------------------------------------------------------


def test_echo_tells_its_own_words_from_wrong_ones_and_from_another_visitors() -> None:
    script, other = (EchoScript(random.Random(seed), (10, 10)) for seed in (1, 2))
    asked = script.next_message()
    assert len(asked.split()) == 10 and script.name in asked
    assert script.judge(asked, asked)[0] == RIGHT
    assert script.judge(asked, asked[:-1])[0] == WRONG
    assert script.judge(asked, script.next_message())[0] == WRONG
    assert script.judge(asked, other.next_message())[0] == MIXED_UP


def test_names_tell_forgotten_ones_from_another_visitors() -> None:
    script = NameScript(random.Random(1), 0)
    assert script.next_message() == "My name is Anna."
    assert script.judge("Hello!", "Hello, Ben!")[0] == MIXED_UP
    assert script.judge("Hello!", "Benches are nice.")[0] == RIGHT
    assert script.judge("What is my name?", "I do not know.")[0] == FORGOTTEN
    assert script.judge("What is my name?", "Your name is Anna.")[0] == RIGHT
    said = [script.next_message() for _ in range(4)]
    assert said[1::2] == ["What is my name?"] * 2
    script.restart()
    assert script.next_message() == "My name is Anna."


# -- arrival ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "share"), [("steady", 1.0), ("ramp", 0.5), ("spike", 0.4)])
def test_arrivals_are_as_many_as_the_profile_says(profile: str, share: float) -> None:
    times = list(poisson_arrivals(100.0, PROFILES[profile], 100.0, random.Random(1)))
    assert times == sorted(times) and times[-1] < 100.0
    assert len(times) == pytest.approx(10_000 * share, rel=0.05)  # of one seed


def test_gaps_of_steady_arrivals_are_exponential() -> None:
    times = list(poisson_arrivals(10.0, PROFILES["steady"], 1000.0, random.Random(2)))
    gaps = sorted(late - early for early, late in pairwise(times))
    assert gaps[len(gaps) // 2] == pytest.approx(0.0693, rel=0.05)  # ln 2 / 10


# -- figures ---------------------------------------------------------------------------------------------


def test_goodput_is_of_right_replies_and_of_the_time_that_counts() -> None:
    early = reply(0.5, (1.0, 2), (2.5, 2))  # half of it arrived in the warm-up
    inside = reply(3.0, (4.0, 1), (5.0, 3))
    late = reply(9.0, (9.5, 1), (11.0, 1))  # half of it came after the end
    wrong = reply(5.0, (6.0, 100), verdict=WRONG)
    refused = reply(6.0, verdict="refused")
    phase = Phase(0.0, 10.0, 5.0, [early, inside, late, wrong, refused], [0.001] * 100)
    assert tokens_between(early, 2.0, 10.0) == 2
    summary = summarise(phase, 2.0)
    assert summary["tokens_per_sec"] == round((2 + 4 + 1) / 8, 2)
    assert summary["replies_per_sec"] == round(2 / 8, 3)
    assert (summary["num_right"], summary["num_faults"]) == (3, 1)
    assert summary["TTFT"]["num"] == 2 and summary["TTFT"]["max"] == 1000.0
    assert summary["REFUSED"]["p99"] == 20.0
    assert summary["QUEUE"]["p50"] == 100.0
    assert summary["verdicts"] == {RIGHT: 3, WRONG: 1, "refused": 1}


def test_a_server_that_grows_during_a_soak_is_found() -> None:
    def sample(at: float, leak: float) -> dict[str, float]:
        return {"at": at, "rss_kib": 10**5 + leak * at + at % 7, "threads": 30, "open_files": 40 + at % 2}

    phase = Phase(records=[reply(float(n)) for n in range(600)])
    for n, record in enumerate(phase.records):
        record.headers_at = record.sent_at + 0.01 + 0.001 * n
    steady = growth_goals("waitress", [sample(5.0 * n, 0.0) for n in range(120)], phase)
    leaking = growth_goals("waitress", [sample(5.0 * n, 50.0) for n in range(120)], Phase())
    assert {goal.name: goal.is_met for goal in steady} == {
        "waitress: slope of rss_kib": True,
        "waitress: slope of threads": True,
        "waitress: slope of open_files": True,
        "waitress: slope of answer_ms": False,
    }
    assert [goal.is_met for goal in leaking] == [False, True, True]
    assert leaking[0].value == "+1.8e+05 an hour, +2.37e+04 in all"


def test_distribution_is_in_ms() -> None:
    figures = distribution(i / 1000 for i in range(101))
    assert figures == {"num": 101, "mean": 50, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert distribution([]) == {"num": 0}


def test_delay_is_against_the_schedule_that_the_least_late_chunk_shows() -> None:
    on_time = reply(0.0, (1.00, 1), (1.05, 1), (1.10, 1))
    assert delays_sec(on_time, 20.0) == pytest.approx([0, 0, 0])
    hiccup = reply(0.0, (1.00, 1), (1.09, 1), (1.10, 1), (1.20, 2))
    assert delays_sec(hiccup, 20.0) == pytest.approx([0, 0.04, 0, 0])
    assert delays_sec(reply(0.0, (1.02, 1), (1.05, 1)), 20.0) == pytest.approx([0.02, 0])
    assert words_per_sec(on_time) == pytest.approx(20)


def run(name: str, goodput: float, gap: float, refused: float, late: float = 1.0) -> Run:
    summary = {
        "tokens_per_sec": goodput,
        "ITL": {"p99": gap},
        "REFUSED": {"num": 1, "p99": refused},
        "generator_late": {"p99": late},
    }
    return Run("waitress", name, 1.0, summary)


@pytest.mark.parametrize(
    ("last", "met"),
    [
        (run("4 x", 98.0, 55.0, 49.0), [True, True, True, True]),
        (run("4 x", 97.0, 55.0, 49.0), [False, True, True, True]),
        (run("4 x", 98.0, 55.0, 50.0), [True, False, True, True]),
        (run("4 x", 98.0, 56.0, 49.0), [True, True, False, True]),
        (run("4 x", 98.0, 55.0, 49.0, late=11.0), [True, True, True, False]),
    ],
)
def test_goals_of_an_overload(last: Run, met: list[bool]) -> None:
    assert [goal.is_met for goal in goals_of("waitress", [run("alone", 100.0, 50.0, 0.0), last])] == met


# -- files and options -----------------------------------------------------------------------------------


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    record = reply(1.0, (2.0, 1), (3.0, 2))
    path = tmp_path / "records"
    lines = ['{"kind": "began_at", "value": 1.0}', to_line(record), '{"kind": "late", "sec": [0.1, 0.2]}']
    path.write_text("\n".join([*lines, '{"kind": "ended_at", "value": 9.0}']))
    assert read_phase(path) == Phase(1.0, 9.0, 0.0, [record], [0.1, 0.2])


def test_a_plan_travels_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(records="r", rate=2.5, words=(3, 4), habits=Habits(max_turns=9))
    for name, value in plan.to_environ().items():
        monkeypatch.setenv(name, value)
    assert Plan.of_environ() == plan


def test_a_result_without_answers_is_not_right() -> None:
    assert not Result("empty", "users").is_right
    assert not is_right("mock", num_right=0, num_faults=0)
    assert not is_right("mock", num_right=3, num_faults=1)
    assert is_right("mock", num_right=3, num_faults=0)


def test_a_model_may_forget_some_names_but_not_many() -> None:
    assert is_right("demo", num_right=95, num_faults=0, num_forgotten=5)
    assert not is_right("demo", num_right=94, num_faults=0, num_forgotten=6)
    assert is_right("other", num_right=1, num_faults=0, num_forgotten=99)
    assert not is_right("mock", num_right=99, num_faults=0, num_forgotten=1)


def is_right(model: str, num_right: int, num_faults: int, num_forgotten: int = 0) -> bool:
    summary = {"num_right": num_right, "num_faults": num_faults, "verdicts": {FORGOTTEN: num_forgotten}}
    return Result("one", "users", [Run("waitress", "", 1.0, summary)], conditions={"model": model}).is_right


@pytest.mark.parametrize(
    "arguments",
    [
        ["--users", "2", "--rate", "3"],
        ["--model", "other"],
        ["--url", "http://127.0.0.1:1", "--soak", "5"],
        ["--streams", "5", "--model", "demo"],
        ["--duration", "2", "--warm-up", "2"],
        ["--duration", "0"],
        ["--users", "0"],
        ["--rate", "nan"],
        ["--leave", "1.1"],
        ["--think", "-1"],
        ["--url", "https://127.0.0.1"],
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "error:" in capsys.readouterr().err
