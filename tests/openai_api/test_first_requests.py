"""The first requests of a process, when several come at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NUM_PROCESSES = 8  # without the care that is taken, four in ten crash
PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from chatstream_flask.openai_api.parse_body import parse_body
from chatstream_flask.openai_api.schema import ChatBody

body = b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}'
barrier = threading.Barrier(12)

def parse():
    barrier.wait()
    parse_body(body, ChatBody)

threads = [threading.Thread(target=parse) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_requests_at_once_do_not_crash_the_process() -> None:
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    processes = [subprocess.Popen([sys.executable, "-c", PROGRAM], env=environ) for _ in range(NUM_PROCESSES)]
    assert [process.wait(timeout=60) for process in processes] == [0] * NUM_PROCESSES
