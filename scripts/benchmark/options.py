"""Command-line options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .entrant import DEFAULT, GROUPS, SERVERS, WHAT
from .settings import Settings
from .shape import SHAPES, Shape
from .workload import Workload, defaults

PARTS = {
    "serving": "speed, first tokens, gaps and memory of every server over HTTP",
    "floor": "decode steps of the engine compared with their lower bound: bytes to read / memory bandwidth",
    "turns": "time to the first token of turn 1 and of turn 5, after 1,000 tokens",
    "gap": "the longest gap between tokens of running streams while a prompt of 4,000 tokens arrives",
    "growth": "the engine's tokens/s per stream as contexts grow to 4,096 tokens",
    "http": "what HTTP adds to the first token of an idle server",
}
DESCRIPTION = """Benchmarks of this project: real models, against other servers.

parts:
{parts}

servers, each in processes of its own, which are stopped while another one is measured:
{servers}

models: smollm2 (SmolLM2-135M-Instruct, fetched once), {shapes} (random weights), or a folder.

groups of --precision: float32, bfloat16, float16 (all servers alike), and best (chatstream and llama-server
with Q8_0 and 4 bits, vllm with bfloat16).

All servers get the same texts of an exact number of tokens, none of them twice, and give greedy replies of a
fixed length. The workload "8 x 512 (480 shared) + 64, closed loop of 2" is 8 streams that begin together:
each sends a prompt of 512 tokens, of which the first 480 are those of every prompt and were computed before,
reads 64 tokens, and sends its second prompt. Tables have medians of the rounds.

  scripts/bench --install                         the default run: one to two hours on 2 cores
  scripts/bench --model smollm2 --precision float32 --streams 1 8      some minutes
  scripts/bench --model 1b --precision best --streams 8 --prompt-tokens 512 --shared-tokens 480

stdout: tables, and a JSON object as the last line. stderr: progress. With --install as the first option the
packages of the other servers are installed first, vLLM's into .venv-vllm."""
LARGE = 500_000_000  # parameters
VLLM_PYTHON = Path(".venv-vllm/bin/python")


class Options(argparse.Namespace):
    """Parsed command line, with defaults filled in."""

    only: list[str]
    servers: list[str]
    model: list[str]
    precision: list[str]
    streams: list[int] | None
    prompt_tokens: list[int] | None
    shared_tokens: int
    new_tokens: int | None
    requests: int | None
    growth_streams: list[int]
    gap_streams: list[int]
    repeats: int
    device: str
    threads: int | None
    vllm_python: Path

    def settings(self, model_folder: str, folder: str) -> Settings:
        dtype = self.precision[0] if self.precision[0] in ("float32", "bfloat16", "float16") else "bfloat16"
        return Settings(
            model_folder=model_folder, dtype=dtype, device=self.device, threads=self.threads, folder=folder
        )

    def workloads(self, shape: Shape) -> list[Workload]:
        """Return the default ones, or every combination of what the command line asks for."""
        of_default_run = self.default_workloads(shape)
        if not (self.streams or self.prompt_tokens or self.shared_tokens):
            return of_default_run
        return [
            Workload(
                streams=streams,
                prompt_tokens=prompt_tokens,
                new_tokens=self.new_tokens or of_default_run[0].new_tokens,
                requests=self.requests or of_default_run[0].requests,
                shared_tokens=self.shared_tokens,
            )
            for prompt_tokens in self.prompt_tokens or [of_default_run[0].prompt_tokens]
            for streams in self.streams or [4]
        ]

    def default_workloads(self, shape: Shape) -> list[Workload]:
        """Return those that the model has positions for."""
        workloads = defaults(is_large=shape.num_parameters > LARGE)
        return [w for w in workloads if w.context_len <= shape.max_position_embeddings]

    def python_of(self, server: str) -> str:
        """Return the interpreter that has a server's packages."""
        return str(self.vllm_python.absolute()) if server == "vllm" else sys.executable


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION.format(
            parts=_listed(PARTS), servers=_listed(WHAT), shapes=", ".join(sorted(SHAPES))
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=["serving"], help="parts to run; default: serving"
    )
    parser.add_argument("--model", nargs="+", metavar="MODEL", help="default: smollm2 1b; on CUDA 8b")
    parser.add_argument(
        "--precision", nargs="+", choices=GROUPS, help="default: float32 bfloat16 best; on CUDA bfloat16"
    )
    parser.add_argument(
        "--servers",
        nargs="+",
        choices=SERVERS,
        help="default: chatstream vllm llama-server; on CUDA chatstream generate",
    )
    parser.add_argument(
        "--streams", type=_count, nargs="+", metavar="N", help="instead of the default workloads"
    )
    parser.add_argument("--prompt-tokens", type=_count, nargs="+", metavar="N", help="likewise; default: 32")
    parser.add_argument("--shared-tokens", type=int, default=0, metavar="N", help="likewise; default: 0")
    parser.add_argument(
        "--requests", type=_count, metavar="N", help="of each stream: 1 is a burst, more are a closed loop"
    )
    parser.add_argument(
        "--new-tokens", type=_count, metavar="N", help="tokens per reply; default: 64, of 1b 32"
    )
    parser.add_argument("--repeats", type=_count, default=3, metavar="N", help="rounds; default: 3")
    parser.add_argument(
        "--growth-streams", type=_count, nargs="+", default=[1, 4, 16], metavar="N", help="of the growth part"
    )
    parser.add_argument(
        "--gap-streams", type=_count, nargs="+", default=[4, 8], metavar="N", help="running, of the gap part"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=_count, metavar="N", help="worker threads of this project")
    parser.add_argument(
        "--vllm-python", type=Path, default=VLLM_PYTHON, metavar="PATH", help="interpreter that has vllm"
    )
    options = parser.parse_args(arguments, namespace=Options())
    is_on_cuda = options.device.startswith("cuda")
    options.model = options.model or (["8b"] if is_on_cuda else ["smollm2", "1b"])
    options.precision = options.precision or (["bfloat16"] if is_on_cuda else ["float32", "bfloat16", "best"])
    options.servers = options.servers or DEFAULT["cuda" if is_on_cuda else "cpu"]
    if options.shared_tokens >= min(options.prompt_tokens or [1 << 30]):
        parser.error("--shared-tokens must be fewer than --prompt-tokens")
    return options


def _listed(texts: dict[str, str]) -> str:
    return "\n".join(f"  {name:<13} {text}" for name, text in texts.items())


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)
