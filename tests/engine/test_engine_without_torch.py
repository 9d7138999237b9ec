"""Engine and mock run where torch, transformers and Flask are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_MODELS = """
import sys
for name in ("torch", "transformers", "triton", "accelerate"):
    sys.modules[name] = None  # importing it raises ImportError
"""
# The package's own `__init__` imports Flask; an empty package in its place shows what engine and mock need.
WITHOUT_FLASK = """
import types
for name in ("flask", "werkzeug", "waitress"):
    sys.modules[name] = None
package = types.ModuleType("chatstream_flask")
package.__path__ = ["chatstream_flask"]
sys.modules["chatstream_flask"] = package
"""
MOCK_REPLY = """
from chatstream_flask.config import EngineConfig, SamplingParams
from chatstream_flask.engine.detokenizer import Detokenizer
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.request_queue import RequestQueue
from chatstream_flask.engine.scheduler import Scheduler
from chatstream_flask.mock.mock_runner import MockParams, MockRunner, encode_mock_prompt

runner = MockRunner(MockParams(type="echo", time_per_token_sec=0))
queue, scheduler = RequestQueue(2, [1]), Scheduler(1, 256)
request = GenerationRequest(encode_mock_prompt(["Hi!"]), SamplingParams())
queue.put(request, queue.reserve())
assert queue.take(0, wait=False) is request
sequence, _ = scheduler.add(request, Detokenizer(runner.text_decoder(request)))
assert scheduler.next_chunks(256) == [(sequence, 3)]

engine = Engine(EngineConfig(), lambda position: runner)
engine.start()
try:
    request = GenerationRequest(encode_mock_prompt(["Say this again."]), SamplingParams())
    engine.submit(request, engine.reserve())
    request.wait_for_outcome(10)
    assert request.outcome is not None and request.outcome.finish_reason is FinishReason.STOP
    assert request.text == "Say this again."
finally:
    engine.stop()
engine.check_idle()
"""


@pytest.mark.parametrize("blocked", [WITHOUT_MODELS, WITHOUT_MODELS + WITHOUT_FLASK])
def test_mock_reply_through_the_engine(blocked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocked + MOCK_REPLY], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
