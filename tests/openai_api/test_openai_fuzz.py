"""Any body is answered or refused in OpenAI's format, and leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flask_fakes import ScriptedRunner, running_chat
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.openai_api.other_fields import REFUSED
from chatstream_flask.openai_api.schema import ChatBody, CompletionBody

NAMES = sorted({*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *REFUSED} - {"model"})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "\x00", "<tool_call>", "5", "auto", "required", "json_object", "text", "user"]),
)
KEYS = st.sampled_from(
    ["type", "role", "content", "text", "function", "name", "parameters", "schema", "5", ""]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.just([{"role": "user", "content": "Hi"}]) | st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer"])},
        optional={"content": VALUES, "tool_calls": VALUES, "name": VALUES, "tool_call_id": VALUES},
    ),
    max_size=3,
)
PROMPTS = st.sampled_from(["Hi", ["a", "b"], [1]])
INPUTS = {"chat/completions": ("messages", MESSAGES), "completions": ("prompt", PROMPTS)}


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """Return a body with up to four fields more than it needs."""
    name, values = INPUTS[path]
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    more = {field: draw(st.none() | VALUES) for field in names}
    return {"model": "scripted", name: draw(values), **more}


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_no_body_makes_a_server_error(path: str, tmp_path: Path) -> None:
    statuses: Counter[int] = Counter()

    @given(body=bodies(path))
    @settings(deadline=None, max_examples=200)
    def ask(body: dict[str, Any]) -> None:
        response = chat.client().post(f"/v1/{path}", json=body)
        assert response.status_code in (200, 400), response.text
        statuses[response.status_code] += 1
        if response.status_code == 400:
            assert response.get_json()["error"]["message"]
        elif body.get("stream"):
            assert response.text.endswith("data: [DONE]\n\n")
        else:
            assert response.get_json()["choices"]
        assert chat.chat_stream.engine.num_accepted == 0

    with running_chat(tmp_path, ScriptedRunner(lambda prompt: "Hi there")) as chat:
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        ask()
    assert min(statuses[200], statuses[400]) >= 3
