"""`flask chatstream plan` against a real model's steps and a real server under load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chatstream_flask import demo_model
from chatstream_flask.capacity.calibration import measure_steps
from chatstream_flask.capacity.check import LOADS, MEASURES
from chatstream_flask.capacity.profile import Profile
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.model_source import TransformersSource


def test_steps_of_a_model_are_measured_at_every_point() -> None:
    model, tokenizer, device = load_model(str(demo_model.PATH), "cpu")
    source = TransformersSource(model, tokenizer, [device], 128, None)
    switch_sec = sys.getswitchinterval()
    costs = measure_steps(source, num_threads=2, max_slots=4)
    assert [(rows, length) for rows, length, _ in costs.decode] == [
        (rows, length) for rows in (1, 2) for length in (64, 127)
    ]
    assert [(tokens, cached) for tokens, cached, _ in costs.prefill] == [(1, 0), (16, 0), (64, 0), (127, 0)]
    assert all(seconds > 0 for *_, seconds in costs.decode + costs.prefill)
    assert 0 < costs.alone_factor <= 1
    assert sys.getswitchinterval() == switch_sec


@pytest.mark.server
def test_check_compares_with_a_real_server(tmp_path: Path) -> None:
    """The quality of the prediction is not tested: that takes a quiet machine."""
    path = tmp_path / "mock.json"
    command = [sys.executable, "-m", "chatstream_flask", "plan", "--check", "--json", "--model", "mock"]
    command += ["--mock-seconds-per-token", "0.01", "--measured-slots", "4", "--check-seconds", "2"]
    command += ["--check-repeats", "1", "--save-profile", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(done.stdout)
    assert [(row["load"], row["measure"]) for row in rows] == [
        (load, name) for load in LOADS for name, _ in MEASURES
    ]
    real = {(row["load"], row["measure"]): row["real"] for row in rows}
    for load in LOADS:
        assert 0 < real[load, "tokens_per_sec"] <= 4 / 0.01
        assert real[load, "total_sec_p50"] > real[load, "first_token_sec_p50"] > 0
    assert done.returncode == any(abs(row["error"]) > 0.2 for row in rows)
    profile = Profile.load(str(path))
    assert (profile.mock_sec_per_token, profile.costs) == (0.01, ())
