"""Capacity planning: simulations with results that can be calculated by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chatstream_flask.capacity.arrivals import Arrival, burst, play_simulated, poisson_arrivals
from chatstream_flask.capacity.load_client import ClientResult
from chatstream_flask.capacity.load_point import load_point, percentile
from chatstream_flask.capacity.plan import CURVE, Goals, make_plan, num_slots_that_fit, simulate
from chatstream_flask.capacity.profile import Profile
from chatstream_flask.capacity.serving_costs import bisect_increasing, with_serving_costs
from chatstream_flask.capacity.simulation import Simulation, TurnRequest, TurnResult
from chatstream_flask.capacity.step_costs import StepCosts, interpolate
from chatstream_flask.capacity.workload import SimulatedUsers, Workload
from chatstream_flask.cli.cli import cli
from chatstream_flask.config import EngineConfig
from chatstream_flask.errors import ConfigError

STEP_SEC, CHUNK_SEC = 0.01, 0.1


def costs(num_threads: int = 1, **kwargs: Any) -> StepCosts:
    """Return costs: a step takes 10 ms plus 1 ms per row, and a prompt chunk 100 ms."""
    decode = tuple((rows, length, STEP_SEC + 0.001 * rows) for rows in (1, 8) for length in (64, 1024))
    return StepCosts(num_threads=num_threads, decode=decode, prefill=((256, 0, CHUNK_SEC),), **kwargs)


def profile(**kwargs: Any) -> Profile:
    given: dict[str, Any] = {
        "model": "test",
        "device": "cpu",
        "weights_bytes": 2**20,
        "kv_bytes_per_token": 1024,
        "memory_bytes": 2**30,
        "context_len": 1024,
        "prefill_chunk_len": 256,
        "request_sec": 0.0,
        "costs": (costs(),),
    }
    return Profile(**given | kwargs)


def config(slots: int = 1, queue: int = 0, **kwargs: int) -> EngineConfig:
    return EngineConfig(max_running=slots, max_queue_size=queue, **kwargs)


def turn(visitor: int, prompt_tokens: int = 256, reply_tokens: int = 11, **kwargs: int) -> TurnRequest:
    return TurnRequest(visitor=visitor, prompt_tokens=prompt_tokens, reply_tokens=reply_tokens, **kwargs)


# -- costs of a step ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 3.0), (4, 5.0), (5, 7.0), (7, 11.0)])
def test_straight_lines_between_and_beyond(x: int, y: float) -> None:
    assert interpolate([(3, 3.0), (1, 1.0), (5, 7.0)], x) == pytest.approx(y if x else 0.0)


def test_beyond_the_points_nothing_gets_cheaper() -> None:
    assert interpolate([(1, 3.0), (2, 2.0)], 9) == 2.0
    assert interpolate([(4, 2.0), (8, 10.0)], 1) == 0.0
    assert interpolate([(4, 2.0)], 100) == 2.0


def test_decode_goes_by_rows_and_keys_and_prefill_by_tokens_and_what_is_there() -> None:
    it = StepCosts(
        num_threads=1,
        decode=((1, 64, 0.01), (9, 64, 0.09), (1, 1088, 0.03), (9, 1088, 0.27)),
        prefill=((64, 0, 0.1), (128, 0, 0.2), (128, 512, 0.3)),
    )
    assert it.decode_sec(5, [64]) == pytest.approx(0.05)
    assert it.decode_sec(5, [576]) == pytest.approx(0.10)
    assert it.decode_sec(1, [1]) == pytest.approx(0.01, rel=0.2)
    assert it.decode_sec(8, [64, 576]) == it.decode_sec(8, [576])
    by_row = replace(it, is_padded=False)
    assert by_row.decode_sec(8, [64, 576]) == by_row.decode_sec(8, [320]) < it.decode_sec(8, [576])
    assert it.prefill_sec((96, 0)) == pytest.approx(0.15)
    assert it.prefill_sec((128, 256)) == pytest.approx(0.25)
    assert it.prefill_sec((32, 0), (64, 512)) == pytest.approx(0.05 + 0.15)
    packing = replace(it, packs_prompts=True, prefill=((32, 0, 0.1), (128, 0, 0.2)))
    assert packing.prefill_sec((32, 0), (32, 0), (64, 0)) == pytest.approx(0.2)


def test_scaled_costs() -> None:
    half = costs(token_sec=0.1).scaled(0.5)
    assert half.decode_sec(8, [64]) == pytest.approx(costs().decode_sec(8, [64]) / 2)
    assert (half.prefill_sec((256, 0)), half.token_sec) == (CHUNK_SEC / 2, 0.1)


# -- the simulation ------------------------------------------------------------------------------------


def test_one_turn_alone_takes_its_prefill_and_its_steps() -> None:
    (result,) = play_simulated(Simulation(profile(), config()), burst(1, 256, 11))
    assert result.first_token_sec == pytest.approx(CHUNK_SEC)
    assert result.total_sec == pytest.approx(CHUNK_SEC + 10 * 0.011)
    assert result.tokens_per_sec == pytest.approx(1 / 0.011)


def test_second_turn_waits_third_is_refused_and_the_place_is_free_afterwards() -> None:
    simulation = Simulation(profile(), config(slots=1, queue=1))
    for visitor in range(3):
        simulation.at(0.0, lambda visitor=visitor: simulation.submit(turn(visitor)))  # type: ignore[misc]
    simulation.at(5.0, lambda: simulation.submit(turn(3)))
    simulation.run()
    alone = CHUNK_SEC + 10 * 0.011
    refused, first, second, late = simulation.results
    assert refused.is_refused
    assert [a.queue_sec for a in (first, second, late)] == pytest.approx([0.0, alone, 0.0])
    assert second.total_sec == pytest.approx(2 * alone)
    assert late.arrived_at == 5.0


def test_slots_share_steps_and_threads_do_not() -> None:
    num, reply = 8, 101
    one = play_simulated(Simulation(profile(), config(slots=num)), burst(num, 1, reply))
    assert max(a.ended_at for a in one) == pytest.approx(num * CHUNK_SEC + 100 * 0.018, rel=0.1)
    two_threads = profile(costs=(costs(2, alone_factor=0.5),))
    threads = config(slots=num, num_of_generation_threads=2)
    two = play_simulated(Simulation(two_threads, threads), burst(num, 1, reply))
    assert max(a.ended_at for a in two) == pytest.approx(4 * CHUNK_SEC + 100 * 0.014, rel=0.1)
    (alone,) = play_simulated(Simulation(two_threads, threads), burst(1, 1, reply))
    assert alone.total_sec == pytest.approx((CHUNK_SEC + 100 * 0.011) / 2)


def test_sent_tokens_and_requests_have_their_price() -> None:
    dear = profile(costs=(costs(token_sec=0.005),), request_sec=0.5)
    (result,) = play_simulated(Simulation(dear, config()), burst(1, 256, 11))
    assert result.first_token_sec == pytest.approx(CHUNK_SEC + 0.5)
    assert result.total_sec == pytest.approx(CHUNK_SEC + 10 * 0.016 + 0.5)


def test_requests_hold_up_the_replies_in_the_making() -> None:
    busy = profile(turn_sec=0.02)
    simulation = Simulation(busy, config(slots=1))
    for visitor in range(5):
        simulation.at(0.15 * (visitor > 0), lambda visitor=visitor: simulation.submit(turn(visitor)))  # type: ignore[misc]
    simulation.run()
    assert sum(result.is_refused for result in simulation.results) == 4
    assert simulation.results[-1].total_sec == pytest.approx(CHUNK_SEC + 10 * 0.011 + 4 * 0.02)


class SimulatedClient:
    """Client of a simulated server whose costs are known."""

    def __init__(self, true: Profile, config: EngineConfig) -> None:
        self._true = true
        self._config = config

    def play(self, arrivals: Sequence[Arrival], max_open: int) -> list[ClientResult]:
        simulation = Simulation(self._true, self._config)
        seen: dict[int, ClientResult] = {}

        def keep(number: int, result: TurnResult) -> None:
            server_sec = result.first_token_sec - simulation.request_sec
            seen[number] = ClientResult(result=result, server_first_token_sec=server_sec)

        for number, arrival in enumerate(arrivals):
            simulation.at(arrival.at, partial(simulation.submit, arrival.turn, partial(keep, number)))
        simulation.run()
        return [seen[number] for number in range(len(arrivals))]


def test_serving_costs_are_found_from_what_a_client_met() -> None:
    engine = config(8, 8)
    bare = profile(costs=(replace(costs(), prefill=((1, 0, 0.005), (256, 0, CHUNK_SEC))),))
    priced = replace(bare.costs[0].scaled(1.0, 1.5), token_sec=0.0005)
    true = replace(bare, costs=(priced,), turn_sec=0.01, request_sec=0.003)
    found = with_serving_costs(bare, SimulatedClient(true, engine), engine)
    assert found.request_sec == pytest.approx(0.003)
    assert found.costs[0].token_sec == pytest.approx(0.0005, rel=0.2)
    arrivals = poisson_arrivals(5.0, 60.0, 64, 48, 0.5, 1, 1024)  # not those of the measurement
    expected, actual, without = (
        load_point(play_simulated(Simulation(it, engine), arrivals), 0.0, 60.0) for it in (true, found, bare)
    )
    for name in ("first_token_sec_p50", "first_token_sec_p95", "total_sec_p50", "total_sec_p95"):
        assert getattr(actual, name) == pytest.approx(getattr(expected, name), rel=0.1)
    assert without.total_sec_p50 < 0.8 * expected.total_sec_p50


def test_steps_that_were_measured_too_long_are_shortened() -> None:
    engine, true = config(8, 8), profile()
    slow = replace(true, costs=(costs().scaled(1.5),))
    found = with_serving_costs(slow, SimulatedClient(true, engine), engine)
    assert found.costs[0].decode_sec(8, [64]) == pytest.approx(costs().decode_sec(8, [64]), rel=0.05)


def test_where_a_function_comes_to_a_value() -> None:
    assert bisect_increasing(lambda x: x * x, 9.0, 0.0, 10.0) == pytest.approx(3.0, abs=0.01)
    assert bisect_increasing(lambda x: x, -1.0, 0.0, 10.0) == 0.0
    assert bisect_increasing(lambda x: x, 11.0, 0.0, 10.0) == pytest.approx(10.0, abs=0.01)


def test_next_turn_of_a_conversation_goes_on_from_what_the_slot_holds() -> None:
    by_token = profile(costs=(replace(costs(), prefill=((1, 0, 0.001), (1000, 0, 1.0))),))
    simulation = Simulation(by_token, config())
    simulation.submit(turn(1, prompt_tokens=200))
    simulation.at(10.0, lambda: simulation.submit(turn(1, prompt_tokens=300)))
    simulation.at(20.0, lambda: simulation.submit(turn(1, prompt_tokens=300, num_dropped=50)))
    simulation.run()
    first, second, shifted = simulation.results
    assert first.first_token_sec == pytest.approx(0.2)
    assert second.first_token_sec == pytest.approx(0.09, abs=0.001)  # 200 + 10 of 300 tokens were cached
    assert shifted.first_token_sec > 0.25


def test_mock_keeps_its_pace() -> None:
    mock = profile(costs=(), mock_sec_per_token=0.05, prefill_chunk_len=10**6)
    results = play_simulated(Simulation(mock, config(slots=4, queue=4)), burst(8, 10, 20))
    ended_at = [round(result.ended_at, 3) for result in results]
    assert ended_at == [1.0] * 4 + [2.0] * 4


def test_same_seed_same_result_and_all_turns_are_answered() -> None:
    workload = Workload(daily_users=2000, think_sec=5.0, reply_tokens=20, max_new_tokens=80)
    results = []
    for _ in range(2):
        simulation = Simulation(profile(), config(slots=8, queue=8))
        SimulatedUsers(workload, simulation, seed=7).begin(2000.0)
        simulation.run()
        results.append(simulation.results)
        assert simulation._queue.num_accepted == simulation._queue.num_running == 0
    assert results[0] == results[1]
    asked = len(results[0]) / 2000.0
    assert asked == pytest.approx(workload.turns_per_sec, rel=0.15)


def test_mean_of_lengths_is_what_was_said() -> None:
    arrivals = poisson_arrivals(10.0, 500.0, 64, 48, 0.5, seed=1, context_len=512)
    assert len(arrivals) == pytest.approx(5000, rel=0.05)
    assert sum(a.turn.reply_tokens for a in arrivals) / len(arrivals) == pytest.approx(48, rel=0.05)
    assert max(a.turn.prompt_tokens for a in arrivals) == 256
    short = poisson_arrivals(10.0, 500.0, 64, 48, 0.5, seed=1, context_len=300)
    assert max(a.turn.prompt_tokens + 4 * 48 + 16 for a in short) == 300
    with pytest.raises(ConfigError, match="the context must have at least 272 tokens, not 256"):
        poisson_arrivals(10.0, 500.0, 64, 48, 0.5, seed=1, context_len=256)


def test_load_point_counts_what_was_asked_in_its_time() -> None:
    results = [
        TurnResult(arrived_at=at, reply_tokens=10, first_token_sec=1.0, total_sec=2.0, queue_sec=at / 10)
        for at in range(10)
    ]
    results.append(TurnResult(arrived_at=5.5, is_refused=True))
    point = load_point(results, 2.0, 7.0)
    assert (point.num_turns, point.turns_per_sec) == (6, 1.2)
    assert [point.refused_share, point.tokens_per_sec] == pytest.approx([1 / 6, 10.0])
    assert (point.queue_sec_p50, point.queue_sec_p95) == (0.4, 0.6)
    assert (percentile([], 50), percentile([3.0, 1.0, 2.0], 50)) == (0.0, 2.0)


# -- the plan ------------------------------------------------------------------------------------------


def test_plan_meets_its_goals_with_as_few_processes_as_can_be() -> None:
    users = Workload(daily_users=80_000, turns=4, reply_tokens=15, max_new_tokens=32)
    small = profile(memory_bytes=10 * 2**20)  # room for up to 4 slots, so that few sizes are tried
    plan = make_plan(small, users, Goals(), num_turns=200)
    assert Goals().are_met(plan.point)
    assert plan.num_processes == min(c.num_processes(users.turns_per_sec) for c in plan.tried)
    assert plan.num_processes > 1
    share = users.turns_per_sec / (plan.num_processes - 1)
    too_few = simulate(small, users.at_rate(share), plan.config, 200, seed=0)
    assert too_few.first_token_sec_p95 > plan.point.first_token_sec_p95
    shares = [point.refused_share for point in plan.curve]
    assert len(plan.curve) == len(CURVE) and shares[-1] > shares[0]


def test_what_cannot_be_reached_is_said() -> None:
    users = Workload(daily_users=10, reply_tokens=10)
    with pytest.raises(ConfigError, match="no configuration meets the goals"):
        make_plan(profile(), users, Goals(max_first_token_sec=0.05))
    with pytest.raises(ConfigError, match="the model does not fit: it needs 7 GiB for weights"):
        make_plan(profile(weights_bytes=7 * 2**30), users, Goals())
    with pytest.raises(ConfigError, match="measured with 1 worker threads, not 3"):
        make_plan(profile(), users, Goals(), num_threads=3)
    with pytest.raises(ConfigError, match="slots must be between 1 and 9"):
        make_plan(profile(memory_bytes=12 * 2**20), users, Goals(), num_slots=10)


def test_slots_that_fit() -> None:
    assert num_slots_that_fit(10 * 2**20, 1024, 30 * 2**20, 1023) == 17  # of 27 MiB that can be used


# -- profiles and the command --------------------------------------------------------------------------


def test_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "profile.json")
    profile().save(path)
    assert Profile.load(path) == profile()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, '"format": 1'),
        ({"slots": 3}, "unknown field slots; allowed: context_len, "),
        ({"request_sec": "fast"}, "request_sec must be a number, not 'fast'"),
        ({"costs": []}, "needs the costs of a step"),
        ({"costs": [{"num_threads": 1, "decode": [[1, 64]], "prefill": [[1, 0, 1.0]]}]}, "three numbers"),
        ({"costs": [{"num_threads": 1, "decode": [], "prefill": [[1, 0, 1.0]]}]}, "three numbers"),
        ({"weights_bytes": None}, "weights_bytes must be a whole number"),
    ],
)
def test_wrong_profile_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "profile.json"
    profile().save(str(path))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError) as caught:
        Profile.load(str(path))
    assert sentence in str(caught.value)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is not a valid profile"):
        Profile.load(str(path))


def run_plan(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["plan", *args])
    return result.exit_code, result.stdout, result.stderr


def test_command_plans_from_a_profile(tmp_path: Path) -> None:
    path, picture = str(tmp_path / "profile.json"), tmp_path / "plan.svg"
    profile().save(path)
    args = ["--profile", path, "--dau", "3000", "--tokens", "5", "--slots", "4"]
    code, text, _ = run_plan(*args, "--picture", str(picture))
    assert code == 0
    assert "Processes: 1, each on its own device" in text
    assert picture.read_text().startswith("<?xml")
    code, out, _ = run_plan(*args, "--json")
    assert code == 0
    data = json.loads(out)
    assert data["config"]["num_of_concurrent_executions"] == 4
    assert [point["load"] for point in data["curve"]] == list(CURVE)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "give one of --dau NUMBER, --save-profile FILE, --check or --memory-only"),
        (["--check", "--dau", "5"], "leave --dau out"),
        (["--dau", "-1"], "daily users must be between 0.001 and"),
        (["--dau", "many"], "'many' is not a valid float"),
        (["--dau", "5", "--turns", "0"], "turns must be between 1 and 1000, not 0.0"),
        (["--dau", "5", "--peak-share", "2"], "peak share must be between 0.0001 and 1, not 2.0"),
        (["--dau", "5", "--context-len", "4096"], "was measured with context_len=1024: 4096 is more"),
        (["--dau", "5", "--max-new-tokens", "1024"], "max_new_tokens must be between 1 and 1023"),
        (["--dau", "5", "--memory-gib", "0"], "--memory-gib must be between 0.001 and"),
        (["--dau", "5", "--threads", "2"], "was measured with 1 worker threads, not 2"),
        (["--dau", "5", "--slots", "0"], "slots must be between 1 and"),
        (["--dau", "5", "--picture", "plan.doc"], "a picture must end in .svg, .png, .pdf, not plan.doc"),
        (["--dau", "5", "--picture", "/no/such/folder/plan.svg"], "the folder of"),
        (["--dau", "5", "--max-refused", "nan"], "must be between 0 and 1, not nan"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, args: list[str], sentence: str) -> None:
    path = str(tmp_path / "profile.json")
    profile().save(path)
    code, _, errors = run_plan("--profile", path, *args)
    assert code in (1, 2)
    assert sentence in errors


def test_command_tells_what_fits_from_a_config_alone(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8000, "dtype": "bfloat16"}
    config |= {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, _ = run_plan("--memory-only", "--model", str(tmp_path), "--memory-gib", "1", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["kv_bytes_per_token"] == 2 * 8 * 4 * 64 * 2
    assert data["weights_bytes"] == pytest.approx(2 * 31.8e6, rel=0.01)
    assert data["max_slots"] == int((0.9 * 2**30 - data["weights_bytes"]) // (8192 * 2049))
