# /// script
# dependencies = ["guidellm==0.8.1", "torch==2.13.0"]
# ///
"""guidellm: its default run, which streams chat completions; the tokenizer is that of the model's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cells import API_KEY, BASE_URL, run


def benchmark(folder: Path) -> None:
    report = folder / "report.json"
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("guidellm"), "run"),
            *("--backend", f"kind=openai_http,target={BASE_URL.removesuffix('/v1')},api_key={API_KEY}"),
            *("--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=8"),
            *("--tokenizer", f"kind=huggingface_auto,model={os.environ['CLIENT_TOKENIZER']}"),
            *("--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=4"),
            *("--output", f"kind=json,path={report}", "--disable-console-interactive"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-300:]
    totals = json.loads(report.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    assert totals["successful"] >= 4 and not totals["errored"], totals


def stream() -> None:
    with tempfile.TemporaryDirectory() as folder:
        benchmark(Path(folder))


run(stream=stream)
