"""`scripts/bench`: what its figures are made of, and a run so small that it shows only that it works."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from benchmark import random_model
from benchmark.__main__ import main
from benchmark.actor_process import ActorFailed, ActorProcess
from benchmark.bandwidth import Bandwidth
from benchmark.comparison import compare
from benchmark.entrant import Entrant, entrants
from benchmark.gguf_file import interleaved, kind_of, tensor_names, write_model
from benchmark.http_reply import HttpReply
from benchmark.long_prompt import LongPrompt
from benchmark.options import parse
from benchmark.prompts import Prompts
from benchmark.quantise import q4_k, q6_k
from benchmark.round import Round, percentile
from benchmark.servers.launch import Launch
from benchmark.servers.server import Server
from benchmark.settings import Settings
from benchmark.shape import SHAPES, Shape
from benchmark.steady_decode import SteadyDecode
from benchmark.table import table
from benchmark.token_times import TokenTimes
from benchmark.turn_chat import TurnChat
from benchmark.workload import Workload
from fakes import wait_until

from chatstream_flask import demo_model
from chatstream_flask.client import ServerFailed
from chatstream_flask.config import Dtype
from chatstream_flask.inference.loading.gguf_files import GgufFiles, known_splits

TINY = SHAPES["tiny"]
NEW_TOKENS = 400  # so many that streams overlap, also where a step takes a fraction of a millisecond
OURS, THEIRS, OUR_BEST = (
    Entrant("chatstream", "float32"),
    Entrant("vllm", "float32"),
    Entrant("chatstream", "q4"),
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random_model.write(folder, TINY, "float32")
    return folder


@pytest.fixture
def settings(model_folder: Path, tmp_path: Path) -> Settings:
    return Settings(
        model_folder=str(model_folder), dtype="float32", device="cpu", threads=None, folder=str(tmp_path)
    )


def played(total_sec: float, texts: list[str] | None = None) -> Round:
    return Round(
        total_sec=total_sec,
        num_tokens=4,
        first_token_sec=[0.3, 0.1],
        gap_sec=[0.01] * 99 + [0.5],
        texts=texts or ["one two", "three"],
        client_cpu_sec=total_sec / 100,
    )


# -- figures -----------------------------------------------------------------------------------------


def test_ratios_are_those_of_the_same_round() -> None:
    summaries = compare(
        {
            OURS: [played(1.0), played(2.0), played(4.0)],
            THEIRS: [played(2.0), played(8.0), played(4.0, ["one", "three"])],
            OUR_BEST: [],
        }
    )
    assert summaries.keys() == {"chatstream float32", "vllm float32"}
    assert summaries["chatstream float32"]["ratio"] == 1.0
    theirs = summaries["vllm float32"]
    assert theirs["all_tokens_per_s"] == [2.0, 0.5, 1.0]
    assert (theirs["tokens_per_s"], theirs["ratio"], theirs["same_text"]) == (1.0, 2.0, 1.0)
    assert (theirs["first_token_p50_s"], theirs["first_token_p95_s"], theirs["gap_p99_ms"]) == (
        0.1,
        0.3,
        10.0,
    )
    assert theirs["client_cpu"] == 0.01


def test_the_same_text_ends_at_the_first_difference() -> None:
    assert played(1.0, ["abcd", "ef"]).same_share(played(1.0, ["abxd", "ef"])) == 4 / 6
    assert played(1.0, ["abcd"]).same_share(played(1.0, ["ab"])) == 0.5


def test_percentiles() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], p) for p in (50, 75, 95, 100)] == [2.0, 3.0, 4.0, 4.0]
    assert percentile([], 99) == 0


def test_an_entrant_is_compared_with_ours_of_the_same_precision() -> None:
    best = entrants("best", ["chatstream", "vllm", "llama-server", "generate"], "cpu")
    assert [entrant.title for entrant in best] == [
        *("chatstream q8_0", "chatstream q4", "vllm bfloat16", "llama-server q8_0", "llama-server q4")
    ]
    rivals = [rival.precision for entrant in best if (rival := entrant.rival(best))]
    assert rivals == ["q8_0", "q4", "q8_0", "q8_0", "q4"]
    assert THEIRS.rival([THEIRS]) is None
    assert [e.server for e in entrants("float32", ["chatstream", "vllm"], "cuda:1")] == ["chatstream"]


def test_gaps_that_lie_partly_within() -> None:
    times = TokenTimes()
    times.at = [1.0, 2.0, 4.0, 7.0, 8.0]
    assert times.gaps(2.5, 7.0) == [2.0, 3.0]


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_shape_counts_as_its_model_does(is_tied: bool, tmp_path: Path) -> None:
    shape = Shape(**(vars(TINY) | {"tie_word_embeddings": is_tied}))
    model = random_model.make_model(shape, "float32")
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    embedding = 0 if is_tied else model.get_input_embeddings().weight.numel()
    assert shape.step_bytes(3, 0.0, "bfloat16") == 2 * (shape.num_parameters - embedding)
    one_token = shape.step_bytes(1, 1.0, "float32") - shape.step_bytes(1, 0.0, "float32")
    assert one_token == 4 * 2 * 2 * 2 * 16  # bytes, keys and values, layers, heads, numbers of a head
    model.config.save_pretrained(tmp_path)
    assert Shape.of(tmp_path) == shape


def test_the_1b_model_has_1_07_billion_parameters() -> None:
    assert round(SHAPES["1b"].num_parameters / 1e9, 2) == 1.07


def test_a_table() -> None:
    assert table(["a", "long"], [["wide", "1"]]) == "| a    | long |\n|------|-----:|\n| wide |    1 |"


# -- what servers are asked for ----------------------------------------------------------------------


def test_what_cuda_changes() -> None:
    on_cpu, on_cuda = parse([]), parse(["--device", "cuda:1"])
    assert (on_cpu.model, on_cpu.precision) == (["smollm2", "1b"], ["float32", "bfloat16", "best"])
    assert on_cpu.servers == ["chatstream", "vllm", "llama-server"]
    assert (on_cuda.model, on_cuda.precision) == (["8b"], ["bfloat16"])
    assert on_cuda.servers == ["chatstream", "generate"]
    assert on_cuda.settings("/model", "/x").device == "cuda:1"


def test_workloads() -> None:
    of_default_run = parse([]).workloads(SHAPES["1b"])
    assert {w.new_tokens for w in of_default_run} == {32}
    assert max(w.streams for w in of_default_run) == 16
    command = "--streams 1 8 --prompt-tokens 512 2048 --shared-tokens 480 --requests 2"
    options = parse(command.split())
    chosen = options.workloads(TINY)
    assert [(w.streams, w.prompt_tokens) for w in chosen] == [(1, 512), (8, 512), (1, 2048), (8, 2048)]
    assert chosen[1].title == "8 x 512 (480 shared) + 64, closed loop of 2"


@pytest.mark.parametrize("folder", [None, demo_model.PATH], ids=["random words", "demo model"])
def test_prompts_have_the_number_of_tokens(folder: Path | None, model_folder: Path) -> None:
    prompts, random = Prompts(folder or model_folder), Random(0)
    workload = Workload(streams=2, prompt_tokens=20, new_tokens=4, requests=3, shared_tokens=12)
    texts = workload.texts(prompts, random)
    asked = [text for of_stream in texts.of_streams for text in of_stream]
    assert len(set(asked)) == 6
    assert len(texts.shared.split()) == 12
    assert all(text.startswith(texts.shared + " ") and len(text.split()) == 20 for text in asked)
    assert workload.texts(prompts, random).shared != texts.shared
    tokenizer = random_model.make_tokenizer(TINY.vocab_size)
    if folder is None:
        assert {len(tokenizer(text)["input_ids"]) for text in asked} == {20}


def test_replies_of_the_random_model_become_the_same_tokens_again() -> None:
    tokenizer = random_model.make_tokenizer(TINY.vocab_size)
    names = random_model.tokens(TINY.vocab_size)
    assert len(set(names)) == TINY.vocab_size
    ids = [i for i, name in enumerate(names) if name.startswith(random_model.SPACE) and len(name) > 1]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids
    rows = random_model.make_model(TINY, "float32").lm_head.weight.abs().sum(dim=1)
    assert rows.nonzero().flatten().tolist() == ids


# -- GGUF --------------------------------------------------------------------------------------------


def test_every_tensor_has_a_name_in_gguf() -> None:
    names = tensor_names(TINY.num_hidden_layers)
    assert names.keys() == random_model.make_model(TINY, "float32").state_dict().keys()
    assert len(set(names.values())) == len(names)
    assert names["model.layers.1.mlp.gate_proj.weight"] == "blk.1.ffn_gate.weight"


def test_numbers_that_rotate_together_are_neighbours() -> None:
    rows = np.arange(16).reshape(16, 1)
    assert interleaved(rows, num_heads=2)[:, 0].tolist() == [
        *(0, 4, 1, 5, 2, 6, 3, 7),
        *(8, 12, 9, 13, 10, 14, 11, 15),
    ]


def test_formats_are_those_of_llama_cpps_mixture() -> None:
    large, small = SHAPES["1b"], TINY
    assert kind_of("output_norm.weight", "q8_0", large) == "F32"
    assert kind_of("blk.3.ffn_down.weight", "bfloat16", large) == "BF16"
    assert [kind_of(f"blk.{i}.ffn_down.weight", "q4", large) for i in range(6)] == [
        *("Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K")
    ]
    assert kind_of("blk.0.attn_q.weight", "q4", large) == "Q4_K"
    assert kind_of("token_embd.weight", "q4", large) == "Q6_K"
    assert kind_of("blk.0.attn_q.weight", "q4", small) == "Q4_0"


def test_packed_blocks_are_read_by_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    matrix = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    matrix[1, :256] = 0
    for pack, kind, error in ((q4_k, "Q4_K", 0.25), (q6_k, "Q6_K", 0.08)):
        read = gguf.quants.dequantize(pack(matrix), gguf.GGMLQuantizationType[kind])
        assert np.abs(read - matrix).max() < error
        assert not read[1, :256].any()


def test_a_written_file_is_the_model(model_folder: Path, tmp_path: Path) -> None:
    if not known_splits():
        pytest.skip("this transformers is too old for GGUF files")
    write_model(tmp_path / "model.gguf", model_folder, "float32")
    read = GgufFiles(str(tmp_path / "model.gguf"))
    expected = random_model.make_model(TINY, "float32").state_dict()
    weights = read.load_weights(Dtype.FLOAT32, "cpu").state_dict()
    assert all((weights[name] == weight).all() for name, weight in expected.items())
    text = " bace diba bace"
    assert (
        read.load_tokenizer()(text).input_ids == random_model.make_tokenizer(TINY.vocab_size)(text).input_ids
    )


# -- HTTP --------------------------------------------------------------------------------------------

TEXTS = [b'data: {"choices": [{"text": "t1"}]}\n\n', b'data: {"choices": [{"text": " t2"}]}\n\n']
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'


def reply_of(*pieces: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> HttpReply:
    reply = HttpReply(asked_at=0.0)
    for i, piece in enumerate((head, *pieces)):
        reply.add(piece)
        reply.arrivals[-1] = (len(reply.received), float(i))
    return reply


def test_an_event_is_there_when_its_last_byte_is() -> None:
    reply = reply_of(TEXTS[0] + TEXTS[1][:9], TEXTS[1][9:], USAGE)
    assert (reply.text, reply.text_times, reply.gaps, reply.ended_at) == ("t1 t2", [1.0, 2.0], [1.0], 3.0)
    assert reply.usage["prompt_tokens"] == 3


def test_chunks_that_arrive_in_parts() -> None:
    first, second = (b"%x\r\n%s\r\n" % (len(data), data) for data in TEXTS)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply = reply_of(first + second[:20], second[20:], b"0\r\n\r\n", head=head)
    assert (reply.text, reply.text_times) == ("t1 t2", [1.0, 2.0])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (reply_of(b"no", head=b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), "503"),
        (reply_of(b'data: {"error": "no room"}\n\n'), "no room"),
        (reply_of(*TEXTS), "without numbers of tokens"),
    ],
)
def test_replies_that_are_errors(reply: HttpReply, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        _ = reply.usage


def test_a_reply_of_another_length_is_an_error() -> None:
    replies = [[reply_of(*TEXTS, USAGE)]]
    assert Round.of(replies, Workload(streams=1, prompt_tokens=3, new_tokens=2), 0.0).num_tokens == 2
    with pytest.raises(ValueError, match=r"have \(3, 2\) tokens, \(3, 4\) were asked for"):
        Round.of(replies, Workload(streams=1, prompt_tokens=3, new_tokens=4), 0.0)


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


STAND_IN = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        usage = {{"prompt_tokens": len(body["prompt"].split()), "completion_tokens": body["max_tokens"]}}
        self.do_GET()
        events = [{{"choices": [{{"text": " word"}}]}}] * body["max_tokens"]
        events += [{{"choices": [], "usage": usage}}]
        self.wfile.write(b"".join(b"data: %s\\n\\n" % json.dumps(event).encode() for event in events))

assert sys.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


LEAVES_A_CHILD = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
sys.exit(3)
"""


class Fails(Server):
    """A server that ends while it starts, and whose child does not."""

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-c", LEAVES_A_CHILD]


def test_a_server_that_fails_leaves_no_process(settings: Settings) -> None:
    with pytest.raises(ServerFailed, match="ended with status 3"):
        Fails(Launch(settings=settings, precision="float32", slots=1, context_len=64)).start()
    pid = int(Path(settings.folder, "Fails-float32", "log").read_text())
    wait_until(lambda: is_over(pid))


def is_over(pid: int) -> bool:
    """Return whether a process has ended, also if nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run with the real server and a stand-in for vLLM's interpreter, which answers as vLLM does."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    command = (
        f"--model {demo_model.PATH} --precision float32 --servers chatstream vllm --vllm-python {stand_in}"
    )
    command += " --streams 1 2 --requests 2 --shared-tokens 16 --new-tokens 4 --repeats 1"
    assert main(command.split()) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    told: dict[str, Any] = json.loads(last)[0]
    assert told["conditions"]["cpus"] >= 1
    (group,) = told["serving"]["groups"]
    assert group["left_out"] == {}
    assert [level["workload"] for level in group["levels"]] == [
        f"{n} x 32 (16 shared) + 4, closed loop of 2" for n in (1, 2)
    ]
    for level in group["levels"]:
        assert level["servers"].keys() == {"chatstream float32", "vllm float32"}
        assert all(summary["tokens_per_s"] > 0 for summary in level["servers"].values())
    assert all(server["pss"] > 0 for server in group["servers"].values())
    assert any(line.startswith("| 2 x 32 (16 shared) + 4") for line in shown)
