"""`ChatStream.from_pretrained`: what the model's files say is the default of what is not given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.errors import ConfigError, NoChatTemplate
from chatstream_flask.inference import context_room

RECOMMENDED = {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}


def make_folder(tmp_path: Path, **generation_config: Any) -> Path:
    """Return a copy of the demo model's folder with another generation config."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]} | generation_config))
    return folder


def remove_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"})
    )
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def sampling_of(chat_stream: ChatStream) -> dict[str, Any]:
    return {name: getattr(chat_stream.params, name) for name in RECOMMENDED}


def test_the_models_generation_config_is_the_default(tmp_path: Path) -> None:
    chat_stream = ChatStream.from_pretrained(make_folder(tmp_path, **RECOMMENDED), device="cpu")
    assert sampling_of(chat_stream) == RECOMMENDED


def test_an_argument_wins_over_the_generation_config(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, **RECOMMENDED)
    chat_stream = ChatStream.from_pretrained(folder, device="cpu", temperature=0, top_k=0)
    assert sampling_of(chat_stream) == RECOMMENDED | {"temperature": 0, "top_k": 0}


def test_a_model_without_recommendations_has_the_constructors_defaults(tmp_path: Path) -> None:
    chat_stream = ChatStream.from_pretrained(make_folder(tmp_path, repetition_penalty=1.0), device="cpu")
    assert sampling_of(chat_stream) == {
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": None,
    }


def test_a_model_that_says_not_to_sample_is_greedy(tmp_path: Path) -> None:
    chat_stream = ChatStream.from_pretrained(make_folder(tmp_path, do_sample=False), device="cpu")
    assert chat_stream.params.is_greedy


def test_context_and_reply_are_as_long_as_the_model_allows() -> None:
    chat_stream = ChatStream.from_pretrained(DEMO_MODEL, device="cpu")
    assert chat_stream.engine.config.context_len == 1024  # positions that it was trained for
    assert chat_stream.params.max_new_tokens == 512


def test_the_context_is_shorter_if_the_memory_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_room, "free_bytes", lambda device: 25 * 2**20)
    chat_stream = ChatStream.from_pretrained(DEMO_MODEL, device="cpu")
    assert chat_stream.engine.config.context_len == 768


def test_weights_larger_than_the_memory_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path)
    (folder / "model.safetensors").write_text("is not read")
    monkeypatch.setattr(context_room, "free_bytes", lambda device: 2**20)
    with pytest.raises(ConfigError, match="the weights need 4 MiB, but only 1 MiB are free on cpu"):
        ChatStream.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 3}, "temperature must be between 0 and 2"),
        ({"dtype": "int4"}, "dtype must be one of"),
        ({"device": "gpu"}, "device must be"),
        ({"chat_template": "{% for"}, "chat_template has an error in line 1"),
        ({"chat_template": ""}, "chat_template must be the text of a Jinja template"),
    ],
)
def test_a_wrong_argument_is_told_before_the_weights_are_read(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    folder = make_folder(tmp_path)
    (folder / "model.safetensors").write_text("is not read")
    with pytest.raises(ConfigError, match=sentence):
        ChatStream.from_pretrained(folder, **({"device": "cpu"} | options))


def test_a_misspelt_argument_is_told_before_the_weights_are_read() -> None:
    with pytest.raises(TypeError, match="tempature"):
        ChatStream.from_pretrained("is not looked for", tempature=1)


def test_a_model_without_a_template_is_refused_unless_one_is_given(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    remove_template(folder)
    with pytest.raises(NoChatTemplate, match="has no chat template: give one with chat_template"):
        ChatStream.from_pretrained(folder, device="cpu")
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    chat_stream = ChatStream.from_pretrained(folder, device="cpu", chat_template=template)
    assert chat_stream.source.encode_messages([{"role": "user", "content": "a"}], [], {}) == (
        chat_stream.source.encode_text("a")
    )


def test_clients_see_the_model_under_its_name_and_where_each_setting_comes_from(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.secret_key = "secret"
    folder = make_folder(tmp_path, temperature=0.6)
    chat_stream = ChatStream.from_pretrained(folder, device="cpu", model_name="small", top_p=0.5, app=app)
    chat_stream.append_apis(app, {"all": True})
    client = app.test_client()
    assert chat_stream.source.model_name == "small"
    client.post("/set_generation_params", json={"top_k": 5})
    answer = client.get("/get_generation_params").json
    assert answer is not None
    assert answer["generation_params"]["temperature"] == 0.6
    assert answer["origins"] == {
        "temperature": "generation_config",
        "top_k": "conversation",
        "top_p": "constructor",
        "repetition_penalty": "constructor",
        "repetition_penalty_method": "constructor",
        "seed": "constructor",
        "max_new_tokens": "context_len",
        "max_reasoning_tokens": "constructor",
        "enable_thinking": "constructor",
        "reasoning_effort": "constructor",
        "chat_template_kwargs": "constructor",
    }
