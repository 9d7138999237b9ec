"""A chat whose model calls functions as a script says, with the tokenizer of the demo model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from families import FamilyRunner, FamilySource
from flask_fakes import Chat, add_routes, make_chat, set_source, stopping
from transformers import AutoTokenizer

from chatstream_flask import ChatPrompt, demo_model
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.views import create_chat_blueprint

KNOWS_TOOLS = (  # a template that shows tools, calls and results, as those of Qwen do
    "{% if tools %}<|system|>{{ tools | tojson }} Write <tool_call> {json} </tool_call><|end|>{% endif %}"
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {"its template knows tools": KNOWS_TOOLS, "they are told in words": ""}


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class ScriptRunner(FamilyRunner):
    """Writes what `write(prompt)` returns, in tokens."""

    def __init__(self, tokenizer: Any, write: Callable[[str], str]) -> None:
        super().__init__(tokenizer)
        self.write = write
        self.seen: list[str] = []  # prompts, in the order in which they came

    def _next_id(self, sequence: Sequence) -> int:
        prompt = self._tokenizer.decode(sequence.request.prompt_ids)
        if prompt not in self.seen:
            self.seen.append(prompt)
        self.script = self.write(prompt)
        return super()._next_id(sequence)


@cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model.PATH)


def tool_tokenizer(template: str = KNOWS_TOOLS) -> Any:
    """Return the demo model's tokenizer with another chat template; "": with its own."""
    tokenizer = copy.copy(_tokenizer())
    if template:
        tokenizer.chat_template = template
    return tokenizer


@contextmanager
def tool_chat(
    folder: Path, write: Callable[[str], str], template: str = KNOWS_TOOLS, **config: Any
) -> Iterator[Chat]:
    """Yield a chat with every API; `write` gets the prompt."""
    tokenizer = tool_tokenizer(template)
    runner = ScriptRunner(tokenizer, write)
    chat = make_chat(
        folder,
        runner,
        {"CHATSTREAM_PROBE_SEC": 0.005} | config,
        chat_prompt_clazz=ChatPrompt,
        context_len=4096,
    )
    set_source(chat.chat_stream, FamilySource(tokenizer, runner))
    with stopping(chat):
        chat.chat_stream.init_app(chat.app)
        add_routes(chat.app, chat)
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/api")
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        yield chat
