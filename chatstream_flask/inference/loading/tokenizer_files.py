"""A model's tokenizer and generation config without its weights; needs no torch."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ...errors import ConfigError


class TokenizerFiles(NamedTuple):
    """What a model's files say beside its weights."""

    tokenizer: Any
    generation_config: Any  # None: there is none


def read_tokenizer(name: str | os.PathLike[str]) -> TokenizerFiles:
    """Read them from a folder or the hub.

    :raises ConfigError: there is no tokenizer
    """
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers and tokenizers have no common error
        raise ConfigError(f"the tokenizer {os.fspath(name)} could not be loaded: {error}") from error
    try:
        return TokenizerFiles(tokenizer, GenerationConfig.from_pretrained(name))
    except OSError:
        return TokenizerFiles(tokenizer, None)


def eos_ids_of(files: TokenizerFiles) -> frozenset[int]:
    """Return all ids that end a reply: those of the generation config and that of the tokenizer."""
    named = getattr(files.generation_config, "eos_token_id", None)
    ids = [*(named if isinstance(named, list | tuple) else [named]), files.tokenizer.eos_token_id]
    return frozenset(token_id for token_id in ids if token_id is not None)
