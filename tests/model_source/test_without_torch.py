"""The mock answers a chat request in a process that cannot import torch, transformers or tokenizers."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

for name in ("accelerate", "llguidance", "numpy", "tokenizers", "torch", "transformers", "triton"):
    sys.modules[name] = None  # importing it raises ImportError

from flask import Flask

from chatstream_flask import ChatStream

app = Flask(__name__)
app.secret_key = "secret"
chat_stream = ChatStream(use_mock_response=True, mock_params={"time_per_token_sec": 0.0}, app=app)
chat_stream.append_apis(app, {"all": True})
response = app.test_client().post("/chat_stream", json={"user_input": "hello", "regenerate": False})
sys.stdout.write(response.get_data(as_text=True))
chat_stream.close()
"""


def test_a_mock_chat_needs_no_packages_of_models() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "This is a mock reply" in done.stdout
