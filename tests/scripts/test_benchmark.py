"""`scripts/bench`: what its figures are made of, and a run so small that it shows only that it works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark.__main__ import main
from benchmark.actor_process import ActorFailed, ActorProcess
from benchmark.bandwidth import Bandwidth
from benchmark.comparison import compare
from benchmark.contenders.engine import EngineContender
from benchmark.contenders.generate import GenerateContender
from benchmark.contenders.waitress import WaitressContender
from benchmark.dialect import CHAT, completion_text
from benchmark.gguf_file import converted, interleaved, tensor_names
from benchmark.http_client import ask_all
from benchmark.http_reply import HttpReply
from benchmark.long_prompt import LongPrompt
from benchmark.model import make_model, make_tokenizer
from benchmark.options import parse
from benchmark.round import Round
from benchmark.settings import Settings
from benchmark.shape import SHAPES
from benchmark.steady_decode import SteadyDecode
from benchmark.table import table
from benchmark.token_times import TokenTimes
from benchmark.turn_chat import TurnChat
from benchmark.words import text_of, tokens_of

TINY = SHAPES["tiny"]
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6]]
NEW_TOKENS = 400  # so many that streams overlap, also where a step takes a fraction of a millisecond


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(shape_name="tiny", dtype="float32", device="cpu", threads=None, folder=str(tmp_path))


def played(total_sec: float, replies: list[list[int]] | None = None) -> Round:
    return Round(total_sec=total_sec, first_token_sec=[0.1, 0.3], replies=replies or [[1, 2], [3, 4]])


# -- figures -----------------------------------------------------------------------------------------


def test_ratios_are_those_of_the_same_repeat() -> None:
    rounds = {
        "engine": [played(1.0), played(2.0), played(4.0)],
        "other": [played(2.0), played(8.0), played(4.0, [[1, 2], [3, 5]])],
        "nobody": [],
    }
    summary = compare(rounds, "engine")
    assert summary.keys() == {"engine", "other"}
    assert summary["engine"]["tokens_per_s"] == 2.0
    assert summary["engine"]["ratio"] == 1.0
    assert summary["other"]["tokens_per_s"] == 1.0
    assert summary["other"]["first_token_s"] == 0.2
    assert summary["other"]["all_tokens_per_s"] == [2.0, 0.5, 1.0]
    assert summary["other"]["ratio"] == 2.0
    assert summary["other"]["same_tokens"] == 0.917
    assert "ratio" not in compare({"other": rounds["other"]}, "engine")["other"]


def test_a_reply_of_another_length_is_an_error() -> None:
    played(1.0).check(streams=2, new_tokens=2)
    with pytest.raises(ValueError, match=r"2 replies of 3 tokens were asked for, got \[2, 2\]"):
        played(1.0).check(streams=2, new_tokens=3)


def test_gaps_that_lie_partly_within() -> None:
    times = TokenTimes()
    times.at = [1.0, 2.0, 4.0, 7.0, 8.0]
    assert times.gaps(2.5, 7.0) == [2.0, 3.0]


def test_a_shape_counts_as_its_model_does() -> None:
    model = make_model(TINY)
    assert TINY.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    assert TINY.step_bytes(3, 0.0, "bfloat16") == 2 * (TINY.num_parameters - embedding)
    one_token = TINY.step_bytes(1, 1.0, "float32") - TINY.step_bytes(1, 0.0, "float32")
    assert one_token == 4 * 2 * 2 * 2 * 16  # bytes, keys and values, layers, heads, numbers of a head


def test_words_are_tokens() -> None:
    tokenizer = make_tokenizer(TINY.vocab_size)
    assert tokenizer(text_of([7, 0, 499]))["input_ids"] == [7, 0, 499]
    assert tokens_of(tokenizer.decode([7, 0, 499])) == [7, 0, 499]


def test_a_table() -> None:
    assert table(["a", "long"], [["wide", "1"]]) == "a      long\nwide      1"


def test_what_cuda_changes() -> None:
    on_cpu, on_cuda = parse([]), parse(["--device", "cuda:1"])
    assert (on_cpu.model, on_cpu.dtype, on_cpu.streams) == ("small", "float32", [1, 2, 4, 8, 16, 32])
    assert (on_cuda.model, on_cuda.dtype, on_cuda.settings("/x").device) == ("8b", "bfloat16", "cuda:1")


# -- the model for llama.cpp -------------------------------------------------------------------------


def test_every_tensor_has_a_name_in_gguf() -> None:
    names = tensor_names(TINY.num_hidden_layers)
    assert names.keys() == make_model(TINY).state_dict().keys()
    assert len(set(names.values())) == len(names)
    assert names["model.layers.1.mlp.gate_proj.weight"] == "blk.1.ffn_gate.weight"


def test_numbers_that_rotate_together_are_neighbours() -> None:
    rows = np.arange(16).reshape(16, 1)
    assert interleaved(rows, num_heads=2)[:, 0].tolist() == [
        *(0, 4, 1, 5, 2, 6, 3, 7),
        *(8, 12, 9, 13, 10, 14, 11, 15),
    ]


def test_norms_stay_float32() -> None:
    norm, matrix = np.ones(4, np.float32), np.ones((4, 4), np.float32)
    assert converted("model.norm.weight", norm, TINY, np.float16).dtype == np.float32
    assert converted("lm_head.weight", matrix, TINY, np.float16).dtype == np.float16


# -- HTTP --------------------------------------------------------------------------------------------


def test_the_text_of_completions() -> None:
    events = [b'data: {"choices": [{"text": "t1"}]}\n\n', b'data: {"choices": [{"text": " t2"}]}\n\n']
    assert completion_text(b"".join(events)) == "t1 t2"
    assert completion_text(events[0] + events[1][:20]) == "t1"
    with pytest.raises(RuntimeError, match="no room"):
        completion_text(b'data: {"error": "no room"}\n\n')


def test_another_status_than_200_is_an_error() -> None:
    reply = HttpReply(asked_at=0.0)
    reply.add(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno")
    with pytest.raises(RuntimeError, match="503"):
        _ = reply.body


def test_all_ways_of_this_process_make_the_same_replies(settings: Settings) -> None:
    with closing(EngineContender(settings)) as engine:
        engine.prepare(streams=2, context_len=64)
        expected = Round(**engine.play(PROMPTS, new_tokens=6))
    expected.check(streams=2, new_tokens=6)
    assert 0 < min(expected.first_token_sec) <= max(expected.first_token_sec) <= expected.total_sec
    for contender in (WaitressContender(settings), GenerateContender(settings)):
        with closing(contender):
            port = contender.prepare(streams=2, context_len=64)
            replies = ask_all(port, [CHAT.request(prompt, 6) for prompt in PROMPTS])
        assert [tokens_of(CHAT.text(reply.body)) for reply in replies] == expected.replies
        assert all(reply.time_when(lambda body: b"t" in body) <= reply.ended_at for reply in replies)


# -- the engine alone --------------------------------------------------------------------------------


def test_steady_decode(settings: Settings) -> None:
    with closing(SteadyDecode(settings)) as decode:
        decode.prepare(streams=3, longest=64, new_tokens=NEW_TOKENS)
        for context_len in (32, 64):
            decode.compute_prompts(context_len)
            assert decode.measure(context_len, NEW_TOKENS)["tokens_per_s"] > 0


def test_a_long_prompt_and_its_gaps(settings: Settings) -> None:
    with closing(LongPrompt(settings)) as long_prompt:
        long_prompt.prepare(streams=2)
        assert long_prompt.alone()["chunk_sec"] > 0
        told = long_prompt.measure(streams=2)
    assert 0 < told["longest_gap_of_median_stream_sec"] <= told["longest_gap_sec"]
    assert told["gap_before_sec"] > 0
    assert told["first_token_sec"] > 0


def test_turns_find_what_was_kept(settings: Settings) -> None:
    with closing(TurnChat(settings)) as chat:
        told = chat.measure()
    assert [turn["prompt_tokens"] for turn in told.values()] == [20, 1020, 1020]
    first, fifth, again = (turn["cached_tokens"] for turn in told.values())
    assert fifth > 900
    assert first == again == 0


def test_bandwidth(settings: Settings) -> None:
    assert all(speed > 0 for speed in Bandwidth(settings, num_bytes=1 << 12).measure().values())


# -- processes ---------------------------------------------------------------------------------------

ACTOR = """
import os, sys
class Actor:
    def __init__(self, settings): print("libraries talk", settings.dtype)
    def double(self, number): return 2 * number
    def fail(self): raise ValueError("no such thing")
    def end(self): print("out of memory", file=sys.stderr, flush=True); os._exit(3)
    def close(self): ...
"""


@pytest.fixture
def actor(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActorProcess]:
    (tmp_path / "an_actor.py").write_text(ACTOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ActorProcess("an_actor", "Actor", settings) as actor:
        yield actor


def test_an_actor_answers_and_says_why_it_cannot(actor: ActorProcess) -> None:
    assert actor.call("double", number=21) == 42
    with pytest.raises(ActorFailed, match="ValueError: no such thing"):
        actor.call("fail")
    assert actor.call("double", number=1) == 2
    with pytest.raises(ActorFailed, match="the process ended with 3: out of memory"):
        actor.call("end")


def test_what_is_not_installed_is_named(settings: Settings) -> None:
    with pytest.raises(ActorFailed, match="No module named 'not_installed'"):
        ActorProcess("not_installed", "Actor", settings)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "--only streams growth --contenders engine --model tiny --streams 1 2 --growth-streams 1"
    command += f" --new-tokens 4 --repeats 1 --picture-folder {tmp_path}"
    assert main(command.split()) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    told: dict[str, Any] = json.loads(last)
    assert told["conditions"]["dtype"] == "float32"
    assert [level["streams"] for level in told["streams"]["levels"]] == [1, 2]
    assert all(level["contenders"]["engine"]["same_tokens"] == 1.0 for level in told["streams"]["levels"])
    assert len(told["growth"]["lines"][0]["tokens_per_s_per_stream"]) == len(told["growth"]["context_lens"])
    assert any(line.startswith("streams") and "engine" in line for line in shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.svg", "streams.svg"]
