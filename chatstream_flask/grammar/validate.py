"""Validate a grammar in a process of its own, which can be killed: some schemas would take hours.

Run as a script with a JSON object on standard input; prints what is wrong with the grammar, or nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_MEMORY = 2 * 1024**3  # bytes


def limit_resources(cpu_sec: int) -> None:
    try:
        import resource
    except ImportError:  # Windows, where only the parent's timeout applies
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_sec, cpu_sec))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check(job: dict[str, Any]) -> str:
    sys.path[:] = job["path"]
    limit_resources(job["cpu_sec"])
    from llguidance import LLMatcher, LLParserLimits

    error: str = LLMatcher.validate_grammar(job["grammar"], limits=LLParserLimits(verbose_errors=False))
    return error


if __name__ == "__main__":
    sys.stdout.buffer.write(check(json.load(sys.stdin)).encode(errors="replace"))
