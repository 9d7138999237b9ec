"""What HTTP adds to the time to the first token of an idle server of this project."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from ..added_wait import added_wait
from ..options import Options
from ..prompts import Prompts
from ..servers.chatstream import Chatstream
from ..servers.launch import Launch
from ..settings import Settings


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    server = Chatstream(Launch(settings=settings, precision=settings.dtype, slots=1, context_len=512))
    prompts = Prompts(Path(settings.model_folder))
    server.start()
    try:
        rounds = [added_wait(server, prompts) for _ in range(options.repeats)]
    finally:
        server.stop()
    return {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]}


def shown(result: dict[str, Any]) -> str:
    return (
        f"HTTP adds {result['added_ms']:.1f} ms to the first token of an idle server "
        f"({result['http_ms']:.1f} ms instead of {result['engine_ms']:.1f} ms)"
    )
