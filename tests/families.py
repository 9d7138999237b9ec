"""Models that follow a script, with the real tokenizer and chat template of a family.

`scripts/tokenizers` fetches the tokenizers; `CHATSTREAM_TOKENIZERS` names their folder. Templates that do not
come with them are looked for in the folder `CHATSTREAM_TEMPLATES`, by default in `../shared/templates` beside
the repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask_fakes import Chat, ScriptedRunner, add_routes, make_chat, set_source, stopping
from transformers import AutoTokenizer

from chatstream_flask import ChatPrompt
from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.detokenizer import TextDecoder
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.runner import Runner
from chatstream_flask.engine.sequence import Matcher, Sequence
from chatstream_flask.grammar.matcher import GrammarCompiler
from chatstream_flask.inference.keeping_decoder import KeepingDecoder
from chatstream_flask.inference.text_decoder import make_text_decoder
from chatstream_flask.model_source.tokenizer_source import TokenizerSource
from chatstream_flask.openai_api import create_openai_blueprint

ROOT = Path(__file__).parents[1]
TOKENIZERS = os.environ.get("CHATSTREAM_TOKENIZERS", "")
TEMPLATES = Path(os.environ.get("CHATSTREAM_TEMPLATES", ROOT.parent / "shared" / "templates"))
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@dataclass(frozen=True)
class Family:
    """What a model of a family writes.

    :param tokenizer: name of its folder
    :param template: name of its chat template; empty: the tokenizer's own
    :param reasoning: "Hm." as it reasons, up to the answer; empty: it does not
    :param call: the call weather(city="Paris")
    :param template_kwargs: arguments of the template that make it reason
    :param answer: "It is 4." as it answers
    """

    tokenizer: str
    template: str = ""
    reasoning: str = ""
    call: str = HERMES_CALL
    template_kwargs: tuple[tuple[str, Any], ...] = ()
    answer: str = "It is 4."
    reasons_after_tools: bool = True

    @property
    def missing(self) -> str:
        """What is not there; empty if everything is."""
        if not TOKENIZERS or not (Path(TOKENIZERS) / self.tokenizer).is_dir():
            return f"CHATSTREAM_TOKENIZERS names no folder with the tokenizer {self.tokenizer}"
        path = TEMPLATES / self.template
        return f"there is no {path}" if self.template and not path.is_file() else ""

    def load_tokenizer(self) -> Any:
        tokenizer, own_template = _tokenizer(self.tokenizer)
        template = (TEMPLATES / self.template).read_text(encoding="utf-8") if self.template else own_template
        tokenizer.chat_template = template
        return tokenizer


THINK = "<think>\nHm.\n</think>\n\n"
FAMILIES = {
    "Qwen3": Family("qwen3", "", THINK, HERMES_CALL),
    "QwQ": Family(
        "qwen3",
        "ikawrakow__Qwen-QwQ-32B.jinja",
        "Hm.\n</think>\n\n",
        HERMES_CALL,
        (("enable_thinking", True),),
    ),
    "Qwen3-Coder": Family(
        "qwen3",
        "ikawrakow__Qwen3-Coder.jinja",
        call="<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
    ),
    "DeepSeek R1": Family(
        "deepseek_v3",
        "ikawrakow__llama-cpp-deepseek-r1.jinja",
        "Hm.\n</think>\n\n",
        HERMES_CALL,  # transformers cannot render the tools of its template, so they are told in words
    ),
    "DeepSeek V3.1": Family(
        "deepseek_v3",
        "ikawrakow__deepseek-ai-DeepSeek-V3.1.jinja",
        "Hm.</think>",
        HERMES_CALL,  # its template has no place for tools, so they are told in words
        (("thinking", True),),
        reasons_after_tools=False,
    ),
    "DeepSeek V3.2": Family(
        "deepseek_v3",
        "ikawrakow__deepseek-ai-DeepSeek-V3.2.jinja",
        "Hm.</think>",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n'
        '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        (("enable_thinking", True), ("thinking", True)),
    ),
    "gpt-oss": Family(
        "gptoss",
        "ikawrakow__openai-gpt-oss-120b.jinja",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant",
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        answer="<|channel|>final<|message|>It is 4.",
    ),
    "Llama 3.1": Family(
        "llama3_1",
        "ikawrakow__meta-llama-Llama-3.1-8B-Instruct.jinja",
        call='{"name": "weather", "parameters": {"city": "Paris"}}',
    ),
    "Gemma 3": Family("gemma3", call=HERMES_CALL),  # its template has no place for tools
    "R1 distilled into Llama": Family(
        "llama3_1",
        "ikawrakow__deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
        THINK,
        HERMES_CALL,
    ),
}


@cache
def _tokenizer(name: str) -> tuple[Any, str]:
    """Return a tokenizer, which takes seconds to load, and its own chat template."""
    tokenizer: Any = AutoTokenizer.from_pretrained(Path(TOKENIZERS) / name)
    return tokenizer, tokenizer.chat_template


@cache
def _grammars(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, lambda: frozenset({tokenizer.eos_token_id}))


class FamilyRunner(ScriptedRunner):
    """Writes the tokens of `script`, whatever it is asked; a grammar must allow them."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.script = ""
        self.eos_ids = frozenset({tokenizer.eos_token_id})
        self._tokenizer = tokenizer

    def _next_id(self, sequence: Sequence) -> int:
        ids = self._tokenizer.encode(self.script, add_special_tokens=False)
        num_told = len(sequence.token_ids) - sequence.num_prompt
        return int(ids[num_told]) if num_told < len(ids) else min(self.eos_ids)

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        skips = not request.shows_special_tokens
        decoder = make_text_decoder(self._tokenizer, skip_special_tokens=skips)
        return KeepingDecoder(decoder, request.kept_tokens) if skips and request.kept_tokens else decoder

    def matcher(self, grammar: str) -> Matcher:
        return _grammars(self._tokenizer).matcher(grammar)


class FamilySource(TokenizerSource):
    num_devices = 1
    prefill_chunk_len = 256
    model_name = "scripted"

    def __init__(self, tokenizer: Any, runner: Runner) -> None:
        super().__init__(tokenizer, 4096, None)
        self._runner = runner

    def best_num_threads(self, num_sequences: int) -> int:
        return 1

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        return self._runner

    def check(self, params: SamplingParams) -> None: ...


@contextmanager
def family_chat(folder: Path, name: str, config: Mapping[str, Any] | None = None) -> Iterator[Chat]:
    """Yield a chat of `FAMILIES[name]`, with /v1; its `runner.script` is what the model writes."""
    family = FAMILIES[name]
    if family.missing:
        pytest.skip(family.missing)
    tokenizer = family.load_tokenizer()
    runner = FamilyRunner(tokenizer)
    options = {"chat_template_kwargs": dict(family.template_kwargs)}
    chat = make_chat(folder, runner, config, chat_prompt_clazz=ChatPrompt, context_len=4096, **options)
    set_source(chat.chat_stream, FamilySource(tokenizer, runner))
    with stopping(chat):
        chat.chat_stream.init_app(chat.app)
        add_routes(chat.app, chat)
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        yield chat


def add_weather(chat: Chat, name: str) -> None:
    """Register the function that `Family.call` calls; the model answers when it has its result."""
    family, runner = FAMILIES[name], chat.runner
    assert isinstance(runner, FamilyRunner)

    @chat.chat_stream.tool
    def weather(city: str) -> str:
        """Return the weather of a city."""
        runner.script = family.reasoning * family.reasons_after_tools + family.answer
        return f"Warm in {city}."
