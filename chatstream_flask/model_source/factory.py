"""make_source: from the constructor's arguments to a model source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import check_int
from ..errors import ConfigError
from ..inference.devices import checked_devices
from .mock_source import MockSource
from .pretrained import Pretrained
from .protocol import ModelSource
from .transformers_source import TransformersSource

if TYPE_CHECKING:
    from ..inference.devices import Devices

MAX_DRAFTS = 64  # draft tokens of one sequence in one step


def load_remote(
    engine: str | Sequence[str],
    tokenizer: str | os.PathLike[str],
    given: dict[str, Any],
    chat_template: str | None,
) -> Pretrained:
    """See `remote_source.load_remote`."""
    pretrained: Pretrained = _remote_source().load_remote(engine, tokenizer, given, chat_template)
    return pretrained


def _remote_source() -> Any:
    """Import the module of engines over HTTP when it is needed: its HTTP client is optional.

    :raises ConfigError: the client is not installed
    """
    try:
        from . import remote_source
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise ConfigError(
            "an engine over HTTP needs aiohttp: pip install 'chatstream-flask[engines]'"
        ) from error
    return remote_source


def make_source(
    model: Any,
    tokenizer: Any,
    device: Devices,
    context_len: int,
    add_special_tokens: bool | None,
    use_mock_response: bool,
    mock_params: dict[str, Any] | None,
    prompt_lookup_num_tokens: int | None = None,
    engine: Any = None,
) -> ModelSource:
    """Validate the arguments and create the source; they are those of the `ChatStream` constructor.

    :raises ConfigError: an argument has a wrong type or value
    """
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
    if engine is not None:
        if model is not None or devices or use_mock_response or prompt_lookup_num_tokens:
            raise ConfigError(
                "with an engine that is reached over HTTP leave out model, device, use_mock_response and "
                "prompt_lookup_num_tokens"
            )
        source: ModelSource = _remote_source().RemoteSource(
            engine, tokenizer, context_len, add_special_tokens
        )
        return source
    if use_mock_response:
        return MockSource(mock_params, context_len)
    return TransformersSource(
        model, tokenizer, devices, context_len, add_special_tokens, prompt_lookup_num_tokens
    )
