"""An actor: a process that runs calls sent as lines of JSON, so that contenders share no thread pools.

Started by ActorProcess as `python -m benchmark.actor MODULE CLASS SETTINGS`. The first response says whether
the object was created; each further line of input names a method and its arguments. EOF ends the process.
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

PR_SET_PDEATHSIG = 1  # Linux: signal to receive when the parent process ends


def main() -> None:
    module, name, settings = sys.argv[1:]
    end_with_parent()
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
    os._exit(0)  # even if a contender left threads behind


def end_with_parent() -> None:
    """Let Linux end this process with its parent, as a stopped process does not notice a closed input."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def take_stdout() -> TextIO:
    """Return stdout for responses only; everything else that prints to it goes to stderr."""
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
