"""`scripts/bench`: run the chosen parts, print each as it finishes, and draw plots."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from types import ModuleType
from typing import Any

from .actor_process import ActorFailed
from .conditions import conditions
from .entry import ENGINE
from .options import Options, parse
from .parts import floor, gap, growth, streams, turns
from .pictures import draw
from .say import say
from .settings import Settings

MODULES: dict[str, ModuleType] = {
    "streams": streams,
    "floor": floor,
    "turns": turns,
    "gap": gap,
    "growth": growth,
}


def main(arguments: list[str] | None = None) -> int:
    """Return 1 if a part or the engine failed, else 0; other contenders may fail, and the table says why."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        settings = options.settings(folder)
        parts = {name: _measured(name, options, settings) for name in options.only}
    pictures = [str(path) for path in draw(parts, options.picture_folder)]
    for path in pictures:
        print(f"picture: {path}")
    print(json.dumps({"conditions": conditions(options, settings), **parts, "pictures": pictures}))
    return int(any("error" in part or ENGINE in part.get("left_out", {}) for part in parts.values()))


def _measured(name: str, options: Options, settings: Settings) -> dict[str, Any]:
    say(f"-- {name}")
    try:
        result: dict[str, Any] = MODULES[name].measure(options, settings)
    except ActorFailed as error:
        print(f"{name} failed: {error}\n", flush=True)
        return {"error": str(error)}
    print(f"{MODULES[name].shown(result)}\n", flush=True)
    return result


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # raises SystemExit, so that the worker processes are ended
    sys.exit(main())
