"""Where tokens come from: a transformers model with its tokenizer, or the mock."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from .config import ContextPolicy, SamplingParams, check_int
from .engine.runner import Runner
from .errors import BadRequest, ConfigError
from .grammar.matcher import GrammarCompiler
from .inference.devices import checked_devices
from .mock.mock_runner import MockParams, MockRunner, encode_mock_prompt
from .prompts import AbstractChatPrompt, ChatPrompt
from .prompts.fit import FittedPrompt, fit_to_context
from .prompts.message_prompt import Message, encode_messages

if TYPE_CHECKING:
    from .inference.devices import Devices
    from .inference.prepared_model import PreparedModel

MAX_DRAFTS = 64  # tokens proposed for a sequence in a step
FEW = 32  # sequences that one generation thread on CPU has alone


class ModelSource(Protocol):
    model_name: str  # of a folder or on the hub
    response_template: dict[str, Any] | None  # how its replies are parsed, where the tokenizer says it
    num_devices: int  # with a copy of the model each
    context_len: int  # the most tokens of prompt and reply together
    prefill_chunk_len: int  # prompt tokens between two decode steps

    def best_num_threads(self, num_sequences: int) -> int:
        """Generation threads for this many sequences at once, where the user names no number."""

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        """For one of `num_threads` generation threads, on the device of that number."""

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        """The prompt's tokens, at most `max_tokens`; raises PromptTooLong."""

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        """The prompt as the model reads it."""

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        """The prompt for the next message, through the chat template; raises BadRequest where it refuses."""

    def encode_text(self, text: str) -> list[int]:
        """As it stands, control tokens and all."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text and control tokens."""

    def token_text(self, token_id: int) -> str:
        """Of one token within a text; with U+FFFD where it is a part of a character."""

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        """Those stop strings that are one control token: as text they would never be seen."""

    def check(self, params: SamplingParams) -> None:
        """Raises BadRequest for what this model cannot do: a token it does not have, a grammar."""


class TransformersSource:
    """Touches no device before the first `make_runner`, so that a server may fork before it."""

    prefill_chunk_len = 256

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        devices: Sequence[str],
        context_len: int,
        add_special_tokens: bool | None,
        prompt_lookup_num_tokens: int | None = None,
    ) -> None:
        """:param devices: that are to have the model; none: where it is"""
        if model is None or tokenizer is None:
            raise ConfigError("model and tokenizer are needed, unless use_mock_response=True")
        if not hasattr(model, "config") or not callable(model):
            raise ConfigError(f"model must be a loaded transformers model, not {model!r}")
        if not hasattr(tokenizer, "decode"):
            raise ConfigError(f"tokenizer must be a loaded transformers tokenizer, not {tokenizer!r}")
        from .inference.placement import is_dispatched

        if devices and is_dispatched(model):
            raise ConfigError("the model is where its device_map has put it: leave device out")
        self._model = model
        self._tokenizer = tokenizer
        self._devices = devices
        self.num_devices = max(len(devices), 1)
        self._add_special_tokens = add_special_tokens
        self._num_drafts = prompt_lookup_num_tokens or 0
        self._prepared: list[PreparedModel] = []  # one for each device
        self._num_cores = 0  # that a forward on CPU may use
        self._grammars = GrammarCompiler(tokenizer, self._eos_ids)
        self.context_len = min(context_len, _max_positions(model.config) or context_len)
        self.model_name = _short_name(getattr(model.config, "name_or_path", ""))
        self.response_template = getattr(tokenizer, "response_template", None)

    def best_num_threads(self, num_sequences: int) -> int:
        """On CPU one for a few, so that the weights are read once for all of them; for many two, each on
        half of the cores: then products take longer than weights, and the threads never wait for each other.
        Of several devices as many on each.
        """
        kinds = set(self._devices or [str(self._model.device)])
        are_many = num_sequences > FEW * self.num_devices
        on_each = min(2, os.cpu_count() or 1) if kinds == {"cpu"} and are_many else 1
        return on_each * self.num_devices

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        import torch

        from .inference.model_runner import ModelRunner
        from .inference.num_drafts import DraftLengthTuner
        from .inference.placement import place
        from .inference.prepared_model import PreparedModel

        self._num_cores = self._num_cores or torch.get_num_threads()  # later it is what a thread has chosen
        if not self._prepared:
            models = place(self._model, self._devices)
            self._prepared = [PreparedModel(model, self.context_len) for model in models]
        num_on_cpu = num_threads * max(self._devices.count("cpu"), 1) // self.num_devices
        return ModelRunner(
            self._prepared[device],
            self._tokenizer,
            num_slots=num_slots,
            num_cores=max(1, self._num_cores // num_on_cpu),
            all_cores=self._num_cores,
            grammars=self._grammars,
            draft_choice=DraftLengthTuner(self._num_drafts) if self._num_drafts else None,
            prefill_chunk_len=self.prefill_chunk_len,
        )

    @property
    def is_padded(self) -> bool:
        """Each row of a step costs what the longest one does; known when a runner has been opened."""
        return any(prepared.forward.is_padded for prepared in self._prepared)

    @property
    def packs_prompts(self) -> bool:
        """Those of a step are one forward; known likewise."""
        from .inference.slot_model import PackingForward

        return all(isinstance(prepared.forward, PackingForward) for prepared in self._prepared)

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        return fit_to_context(prompt, self._tokenizer, max_tokens, self._add_special_tokens, policy)

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        return prompt.create_prompt({"tokenizer": self._tokenizer})

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        return encode_messages(self._tokenizer, messages, tools, template_kwargs)

    def encode_text(self, text: str) -> list[int]:
        kwargs = {} if self._add_special_tokens is None else {"add_special_tokens": self._add_special_tokens}
        return list(self._tokenizer.encode(text, **kwargs))

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def token_text(self, token_id: int) -> str:
        """After another token, where decoders keep the space that a token begins with."""
        before = self._token_before
        return self.decode([*before, token_id]).removeprefix(self.decode(before))

    @cached_property
    def _token_before(self) -> list[int]:
        return list(self._tokenizer.encode("a", add_special_tokens=False))

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        added = self._tokenizer.get_added_vocab()
        return frozenset(added[string] for string in stop_strings if string in added)

    def check(self, params: SamplingParams) -> None:
        vocab_size = getattr(self._model.config.get_text_config(), "vocab_size", None)
        ids = [token_id for token_id, _ in params.logit_bias]
        if ids and vocab_size is not None and max(ids) >= vocab_size:
            raise BadRequest(
                f"logit_bias names the token {max(ids)}; the model has the tokens 0 to {vocab_size - 1}"
            )
        if params.grammar is not None:
            self._grammars.matcher(params.grammar)

    def _eos_ids(self) -> frozenset[int]:
        from .inference.model_runner import eos_ids

        return eos_ids(self._model, self._tokenizer)


class MockSource:
    num_devices = 1
    prefill_chunk_len = 1_000_000  # its prompts cost nothing
    model_name = "mock"
    response_template: dict[str, Any] | None = None

    def __init__(self, mock_params: dict[str, Any] | None, context_len: int) -> None:
        self._params = MockParams.of(mock_params or {})
        self.context_len = context_len

    def best_num_threads(self, num_sequences: int) -> int:
        return 1

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        return MockRunner(self._params)

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        return frozenset()

    def check(self, params: SamplingParams) -> None:
        if params.grammar is not None:
            raise BadRequest("the mock makes no structured replies: its phrases are fixed")

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        asked = [c.message or "" for c in prompt.get_contents() if c.is_requester]
        return FittedPrompt(encode_mock_prompt(asked), 0)

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        """Without a chat template there is none of it to show."""
        if not isinstance(prompt, ChatPrompt):
            return prompt.create_prompt()
        return "\n".join(f"{c.role.value}: {c.message or ''}" for c in prompt.get_contents())

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        if tools:
            raise BadRequest("the mock knows no tools")
        return encode_mock_prompt([m["content"] for m in messages if m["role"] == "user"] or [""])

    def encode_text(self, text: str) -> list[int]:
        return encode_mock_prompt([text])

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def token_text(self, token_id: int) -> str:
        """Of no use alone: the id says which token of a phrase it is."""
        return f"<{token_id}>"


def make_source(
    model: Any,
    tokenizer: Any,
    device: Devices,
    context_len: int,
    add_special_tokens: bool | None,
    use_mock_response: bool,
    mock_params: dict[str, Any] | None,
    prompt_lookup_num_tokens: int | None = None,
) -> ModelSource:
    check_int("context_len", context_len, 2)
    if prompt_lookup_num_tokens is not None:
        check_int("prompt_lookup_num_tokens", prompt_lookup_num_tokens, 0, MAX_DRAFTS)
    if not isinstance(use_mock_response, bool):
        raise ConfigError(f"use_mock_response must be True or False, not {use_mock_response!r}")
    if add_special_tokens is not None and not isinstance(add_special_tokens, bool):
        raise ConfigError(f"add_special_tokens must be None, True or False, not {add_special_tokens!r}")
    if mock_params is not None and not isinstance(mock_params, dict):
        raise ConfigError(f'mock_params must be a dict such as {{"type": "round"}}, not {mock_params!r}')
    devices = checked_devices(device)
    if use_mock_response:
        return MockSource(mock_params, context_len)
    return TransformersSource(
        model, tokenizer, devices, context_len, add_special_tokens, prompt_lookup_num_tokens
    )


def _short_name(name_or_path: str) -> str:
    """Without the folder: where a model lies is nobody's business."""
    is_path = os.path.isabs(name_or_path) or os.path.isdir(name_or_path)
    return (os.path.basename(os.path.normpath(name_or_path)) if is_path else name_or_path) or "model"


def _max_positions(config: Any) -> int | None:
    """Positions a model was made for; None where its config does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
