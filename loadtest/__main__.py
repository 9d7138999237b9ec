"""`scripts/loadtest`: run one kind of load test and write its report; exit status 1 if a reply was wrong."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import report
from .levels import run_levels
from .options import Options, parse
from .overload import run_overload
from .result import Result
from .soak import run_soak
from .streams import run_streams


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every reply was right, met targets or not; 1 if one was wrong; 2 if there is no report."""
    options = parse(arguments)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # raises SystemExit, so that the server is stopped
    try:
        result = _mode(options)(options, options.output / time.strftime("runs-%Y%m%d-%H%M%S"))
    except RuntimeError as error:  # the server did not start, or no reply came: nothing to report
        print(f"scripts/loadtest: {error}", file=sys.stderr)
        return 2
    report.write(result, options.output)
    report.print_result(result, options.output)
    return 0 if result.is_right else 1


def _mode(options: Options) -> Callable[[Options, Path], Result]:
    if options.overload:
        return run_overload
    if options.streams:
        return run_streams
    return run_soak if options.soak else run_levels


if __name__ == "__main__":
    sys.exit(main())
