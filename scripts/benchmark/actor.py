"""An actor: a process that does what it is told in lines of JSON, so that thread pools do not mix.

Run by ActorProcess: python -m benchmark.actor MODULE CLASS SETTINGS. The first answer tells whether the
object could be made; each line read names a method and its arguments. The end of the input ends the process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from .settings import Settings

PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when its parent ends


def main() -> None:
    module, name, settings = sys.argv[1:]
    end_with_director()
    answers = take_stdout()
    made: list[Any] = []

    def make() -> None:
        made.append(getattr(importlib.import_module(module), name)(Settings(**json.loads(settings))))

    answer(answers, make)
    for line in sys.stdin:
        call = json.loads(line)
        answer(answers, lambda: getattr(made[0], call["method"])(**call["arguments"]))  # noqa: B023
    for actor in made:
        actor.close()
    sys.stderr.flush()
    os._exit(0)  # whatever threads a contender has left behind


def end_with_director() -> None:
    """Where the system can: a process that sleeps would not see that its input has ended."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def take_stdout() -> TextIO:
    """For the answers alone: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def answer(answers: TextIO, do: Callable[[], Any]) -> None:
    try:
        told = {"result": do()}
    except Exception as error:
        traceback.print_exc()
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
