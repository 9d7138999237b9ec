"""What the command line asks for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .entry import ENTRIES
from .settings import Settings
from .shape import BYTES, SHAPES

PARTS = {
    "streams": "tokens/s and time to the first token of every contender, at each number of streams",
    "floor": "steps of the engine against the bytes that they must read and the machine's bandwidth",
    "turns": "time to the first token of turn 1 and of turn 5, after 1,000 tokens",
    "gap": "the longest gap between tokens of running streams while a prompt of 4,000 tokens arrives",
    "growth": "the engine's tokens/s per stream as contexts grow to 4,096 tokens",
}
DESCRIPTION = """How fast this project is. Parts:

{parts}

Contenders, each a process of its own and asleep while another one is measured:

{contenders}

On stdout: a table for each part, and one JSON object as the last line. Progress is on stderr.
`scripts/bench --install ...` first installs what `serve` and `llama.cpp` need; the latter is compiled,
which takes some 12 minutes and a C++ compiler."""


class Options(argparse.Namespace):
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
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    parser.add_argument(
        "--contenders", nargs="+", choices=ENTRIES, default=list(ENTRIES), help="these of the streams"
    )
    parser.add_argument("--streams", type=_count, nargs="+", default=[1, 2, 4, 8, 16, 32], metavar="N")
    parser.add_argument(
        "--growth-streams", type=_count, nargs="+", default=[1, 4, 16], metavar="N", help="of the growth"
    )
    parser.add_argument(
        "--gap-streams", type=_count, nargs="+", default=[4, 8], metavar="N", help="running ones, of the gap"
    )
    parser.add_argument("--repeats", type=_count, default=3, metavar="N", help="a figure is their median")
    parser.add_argument("--new-tokens", type=_count, default=64, metavar="N", help="of each reply")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--model", choices=SHAPES, help="its shape: small (31.8 M) on CPU, 8b on CUDA")
    parser.add_argument(
        "--dtype", choices=BYTES, help="float32 on CPU, bfloat16 on CUDA; llama.cpp: f32, f16"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="generation threads of this project")
    parser.add_argument(
        "--llama-python",
        default=sys.executable,
        metavar="PATH",
        help="an interpreter that has llama_cpp, gguf and numpy; this one by default",
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
