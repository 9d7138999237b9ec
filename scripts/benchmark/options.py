"""Command-line options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .entry import ENTRIES
from .settings import Settings
from .shape import BYTES, SHAPES

PARTS = {
    "streams": "tokens/s and time to the first token of every contender, at each number of streams",
    "floor": "decode steps compared with their lower bound: bytes to read / memory bandwidth",
    "turns": "time to the first token of turn 1 and of turn 5, after 1,000 tokens",
    "gap": "the longest gap between tokens of running streams while a prompt of 4,000 tokens arrives",
    "growth": "the engine's tokens/s per stream as contexts grow to 4,096 tokens",
}
DESCRIPTION = """Benchmarks of this project. Parts:

{parts}

Contenders, each in its own process, which is stopped while another one is measured:

{contenders}

stdout: a table for each part, and a JSON object as the last line. stderr: progress.
`scripts/bench --install ...` first installs the packages for `serve` and `llama.cpp`; the latter is compiled,
which takes about 12 minutes and needs a C++ compiler."""


class Options(argparse.Namespace):
    """Parsed command line, with defaults filled in."""

    only: list[str]
    contenders: list[str]
    streams: list[int]
    growth_streams: list[int]
    gap_streams: list[int]
    repeats: int
    new_tokens: int
    device: str
    model: str
    dtype: str
    threads: int | None
    llama_python: str
    picture_folder: Path

    def settings(self, folder: str) -> Settings:
        return Settings(
            shape_name=self.model,
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
            folder=folder,
        )

    @property
    def is_on_cuda(self) -> bool:
        return self.device.startswith("cuda")


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION.format(
            parts=_listed(PARTS), contenders=_listed({name: entry.what for name, entry in ENTRIES.items()})
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="run only these parts")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=ENTRIES,
        default=list(ENTRIES),
        help="contenders of the streams part",
    )
    parser.add_argument("--streams", type=_count, nargs="+", default=[1, 2, 4, 8, 16, 32], metavar="N")
    parser.add_argument(
        "--growth-streams",
        type=_count,
        nargs="+",
        default=[1, 4, 16],
        metavar="N",
        help="streams of the growth part",
    )
    parser.add_argument(
        "--gap-streams",
        type=_count,
        nargs="+",
        default=[4, 8],
        metavar="N",
        help="running streams of the gap part",
    )
    parser.add_argument(
        "--repeats", type=_count, default=3, metavar="N", help="repeats; the median is reported"
    )
    parser.add_argument("--new-tokens", type=_count, default=64, metavar="N", help="tokens per reply")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument(
        "--model", choices=SHAPES, help="model size; default: small (31.8 M parameters) on CPU, 8b on CUDA"
    )
    parser.add_argument(
        "--dtype", choices=BYTES, help="default: float32 on CPU, bfloat16 on CUDA; in llama.cpp f32 and f16"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="worker threads of this project")
    parser.add_argument(
        "--llama-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with llama_cpp, gguf and numpy; default: this one",
    )
    parser.add_argument("--picture-folder", type=Path, default=Path("build/bench"), metavar="PATH")
    options = parser.parse_args(arguments, namespace=Options())
    options.model = options.model or ("8b" if options.is_on_cuda else "small")
    options.dtype = options.dtype or ("bfloat16" if options.is_on_cuda else "float32")
    return options


def _listed(texts: dict[str, str]) -> str:
    return "\n".join(f"  {name:<10} {text}" for name, text in texts.items())


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)
