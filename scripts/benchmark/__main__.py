"""`scripts/bench`: measures the parts that are asked for, shows each as it is done, and draws pictures."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
from types import ModuleType
from typing import Any

from .actor_process import ActorFailed
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
    """1: a part failed. Contenders may fail; the table says which and why."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the actors end too
    with tempfile.TemporaryDirectory() as folder:
        settings = options.settings(folder)
        parts = {name: _measured(name, options, settings) for name in options.only}
    pictures = [str(path) for path in draw(parts, options.picture_folder)]
    for path in pictures:
        print(f"picture: {path}")
    conditions = _conditions(options, settings)
    print(json.dumps({"conditions": conditions, **parts, "pictures": pictures}))
    return int(any("error" in part for part in parts.values()))


def _measured(name: str, options: Options, settings: Settings) -> dict[str, Any]:
    say(f"-- {name}")
    try:
        result: dict[str, Any] = MODULES[name].measure(options, settings)
    except ActorFailed as error:
        print(f"{name} failed: {error}\n", flush=True)
        return {"error": str(error)}
    print(f"{MODULES[name].shown(result)}\n", flush=True)
    return result


def _conditions(options: Options, settings: Settings) -> dict[str, Any]:
    return {
        "model": f"Llama, {settings.shape.num_parameters / 1e6:.1f} M random parameters",
        "dtype": options.dtype,
        "device": options.device,
        "new_tokens": options.new_tokens,
        "repeats": options.repeats,
        "threads": options.threads,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
