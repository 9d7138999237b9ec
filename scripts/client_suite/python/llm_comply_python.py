# /// script
# dependencies = ["llm-comply==0.5.0"]
# ///
"""llm-comply: whether answers have the form that the specifications of both APIs demand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cells import API_KEY, BASE_URL, MODEL, run

# Left out: image-input and reasoning-summary, which need another model; error-handling, which wants a request
# without a model to be refused; the endpoint for compaction.
CELLS = {
    "chat": "basic-response,system-prompt,multi-turn",
    "stream": "streaming-response,streaming-usage",
    "tools": "tool-calling",
}


def check(tests: str) -> None:
    said = []
    for api in ("open-responses", "openai-chat"):
        program = Path(sys.executable).with_name("llm-comply")
        command = [program, "--format", api, "--filter", tests, "--json"]
        done = subprocess.run(
            [*command, "-u", BASE_URL, "-k", API_KEY, "-m", MODEL], capture_output=True, text=True
        )
        said += json.loads(done.stdout)["results"]
    failed = [f"{result['id']}: {result['errors']}" for result in said if result["status"] == "failed"]
    if failed:
        raise AssertionError("; ".join(failed))


run(**{name: lambda tests=tests: check(tests) for name, tests in CELLS.items()})
