"""`scripts/clients`: runs clients against `serve`, and prints a table of what works."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from . import servers

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "clients"
CELLS = ("chat", "stream", "tools", "structured", "resume", "errors")
CLIENTS = {  # in the order of the table: the script and the client's name
    "python/openai_python.py": "openai (Python)",
    "node/openai_node.mjs": "openai (Node)",
    "node/ai_sdk.mjs": "Vercel AI SDK",
    "python/langchain_python.py": "LangChain (Python)",
    "node/langchain_node.mjs": "LangChain (Node)",
    "python/openai_agents.py": "openai-agents",
    "python/pydantic_ai_python.py": "pydantic-ai",
    "python/instructor_python.py": "instructor",
    "python/litellm_python.py": "litellm",
    "python/dspy_python.py": "dspy",
    "python/huggingface_hub_python.py": "huggingface_hub",
    "python/llm_python.py": "llm",
    "python/llm_comply_python.py": "llm-comply",
    "python/guidellm_python.py": "guidellm",
}
CLIENT_SEC = 900.0


def main() -> int:
    """Run what the command line asks for; return the exit status, which is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of clients; the default is all")
    parser.add_argument("--server", choices=servers.KINDS, default="waitress")
    parser.add_argument("--model", default="demo", help="`demo`, or the folder of a model [default: demo]")
    options = parser.parse_args()
    chosen = [script for script in CLIENTS if not options.names or any(n in script for n in options.names)]
    BUILD.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, str]] = {}
    with servers.running(options.server, options.model, BUILD) as server:
        for script in chosen:
            results[script] = _cells_of(script, server)
    print(table(results))
    failures = [
        f"{CLIENTS[script]}, {cell}: {result}"
        for script, cells in results.items()
        for cell, result in cells.items()
        if result != "ok"
    ]
    print("\n".join(["", *failures]))
    return int(any(": failed" in failure for failure in failures))


def table(results: dict[str, dict[str, str]]) -> str:
    """Return the results as a table in Markdown; a dash is what a client does not have."""
    lines = [f"| client | {' | '.join(CELLS)} |", "|---" * (1 + len(CELLS)) + "|"]
    for script, cells in results.items():
        words = (cells.get(cell, "–").partition(":")[0] for cell in CELLS)
        lines.append(f"| {CLIENTS[script]} | {' | '.join(words)} |")
    return "\n".join(lines)


def _cells_of(script: str, server: servers.Running) -> dict[str, str]:
    """Run the script of a client; return the result of each feature."""
    print(f"{CLIENTS[script]} ...", file=sys.stderr)
    if script.endswith(".py"):
        command = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable, str(HERE / script)]
    else:
        command = ["node", str(BUILD / script)]  # beside its packages
    done = subprocess.run(
        command,
        env=_environment(server),
        capture_output=True,
        text=True,
        timeout=CLIENT_SEC,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"cell"')]
    if not told:
        return dict.fromkeys(CELLS, f"failed: {(done.stdout + done.stderr)[-400:]}")
    return {cell["cell"]: cell["result"] for cell in told}


def _environment(server: servers.Running) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return environ | {
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": servers.KEY,
        "CLIENT_MODEL": server.model,
        "CLIENT_TOKENIZER": server.folder,
        "UV_CACHE_DIR": str(BUILD / "uv"),
        "UV_FIND_LINKS": environ.get("PIP_FIND_LINKS", ""),
        "UV_SYSTEM_CERTS": "1",
        "PATH": f"{BUILD / 'tools' / 'bin'}{os.pathsep}{environ['PATH']}",
        "DO_NOT_TRACK": "1",
        "GUIDELLM__LOGGING__DISABLED": "true",
    }


if __name__ == "__main__":
    sys.exit(main())
