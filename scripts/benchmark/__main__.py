"""`scripts/bench`: run the chosen parts with each model, and print each part as it finishes."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from .actor_process import ActorFailed, ActorProcess
from .conditions import conditions
from .entrant import SUBJECT
from .options import Options, parse
from .parts import floor, gap, growth, http, serving, turns
from .say import say
from .settings import Settings

MODULES: dict[str, ModuleType] = {
    "serving": serving,
    "floor": floor,
    "turns": turns,
    "gap": gap,
    "growth": growth,
    "http": http,
}


def main(arguments: list[str] | None = None) -> int:
    """Return 1 if a part or this project's server failed, else 0; others may fail, and the tables say why."""
    options = parse(arguments)
    results = list[dict[str, Any]]()
    for model in options.model:
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = _with_model(model, options, options.settings("", folder))
            except ActorFailed as error:
                sys.exit(str(error))
            parts = {name: _measured(name, options, settings) for name in options.only}
            results.append({"conditions": conditions(options, settings), **parts})
    print(json.dumps(results))
    return int(any(_has_failed(part) for result in results for part in result.values()))


def _with_model(name: str, options: Options, settings: Settings) -> Settings:
    """Return the settings with the model's folder, which is made if it is one of random weights."""
    say(f"model: {name}")
    if Path(name, "config.json").is_file():
        return options.settings(str(Path(name).resolve()), settings.folder)
    with ActorProcess("benchmark.model_files", "ModelFiles", settings) as files:
        return options.settings(files.call("folder", name=name), settings.folder)


def _measured(name: str, options: Options, settings: Settings) -> dict[str, Any]:
    say(f"-- {name}")
    try:
        result: dict[str, Any] = MODULES[name].measure(options, settings)
    except (RuntimeError, ValueError) as error:
        print(f"{name} failed: {error}\n", flush=True)
        return {"error": str(error)}
    print(f"{MODULES[name].shown(result)}\n", flush=True)
    return result


def _has_failed(part: dict[str, Any]) -> bool:
    left_out = (title for group in part.get("groups", ()) for title in group["left_out"])
    return "error" in part or any(title.split()[0] == SUBJECT for title in left_out)


def _end(*_: object) -> None:
    """Raise SystemExit, so that the servers are ended; a second signal does not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
