"""Validate a grammar in a process of its own, which can be killed: some schemas would take hours.

Run as a script with a JSON object on standard input; prints what is wrong with the grammar, or nothing. It
imports as little as it can, because a request waits for it to start.
"""

from __future__ import annotations

import json
import math
import signal
import sys

MAX_MEMORY = 2 * 1024**3  # bytes


def limit_resources(cpu_sec: float) -> None:
    """Let the system end this process after `cpu_sec` of CPU time, in whatever code it is then."""
    try:
        import resource
    except ImportError:  # Windows, where only the parent's timeout applies
        return
    signal.setitimer(signal.ITIMER_PROF, cpu_sec)  # its signal ends a process that does not handle it
    max_sec = math.ceil(cpu_sec) + 1  # whole seconds, with those of the imports
    resource.setrlimit(resource.RLIMIT_CPU, (max_sec, max_sec))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def import_compiled_part(folder: str) -> None:
    """Let `llguidance._lib` be imported from a folder without the rest of the package, which takes longer."""
    package = type(sys)("llguidance")
    package.__path__ = [folder]
    sys.modules["llguidance"] = package


def check(grammar: str, folder: str, cpu_sec: float) -> str:
    import_compiled_part(folder)
    from llguidance._lib import LLMatcher, LLParserLimits

    limit_resources(cpu_sec)
    error: str = LLMatcher.validate_grammar(grammar, limits=LLParserLimits(verbose_errors=False))
    return error


if __name__ == "__main__":
    sys.stdout.buffer.write(check(**json.load(sys.stdin)).encode(errors="replace"))
