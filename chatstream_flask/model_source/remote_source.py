"""RemoteSource: engines over HTTP with a tokenizer here; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..config import EngineConfig, SamplingParams
from ..engine.runner import Runner
from ..engine.upstream_stats import UpstreamStats
from ..errors import BadRequest, ConfigError
from ..inference.loading.tokenizer_files import TokenizerFiles, eos_ids_of, read_tokenizer
from ..inference.own_tokenizer import own_tokenizer
from ..prompts.turn_end import missing_turn_end
from ..remote.engines import Engines
from ..remote.remote_runner import RemoteRunner
from .pretrained import Pretrained, add_generation_config, checked_template
from .tokenizer_source import TokenizerSource

KEY = "CHATSTREAM_ENGINE_API_KEY"  # environment variable


class RemoteSource(TokenizerSource):
    """The ModelSource of one model that other servers have."""

    num_devices = 1
    prefill_chunk_len = 1_000_000  # a whole prompt is one request

    def __init__(
        self,
        engine: str | Sequence[str] | Engines,
        tokenizer: Any,
        context_len: int,
        add_special_tokens: bool | None,
    ) -> None:
        """Find out what the engines are.

        :param tokenizer: a tokenizer of transformers, or the folder or hub id of one
        :raises ConfigError: no engine can be used with this tokenizer
        """
        files = _tokenizer_files(tokenizer)
        self.engines = engine if isinstance(engine, Engines) else connect(engine, files.tokenizer)
        super().__init__(
            own_tokenizer(files.tokenizer),
            min(context_len, self.engines.model_len or context_len),
            add_special_tokens,
            len(files.tokenizer),
        )
        self.engines.use_context(self.context_len)
        self.model_name = self.engines.model_name or "model"
        eos_ids = eos_ids_of(files)
        turn_end = missing_turn_end(self._tokenizer, eos_ids)
        self._eos_ids = eos_ids if turn_end is None else eos_ids | {turn_end}

    def best_num_threads(self, num_sequences: int) -> int:
        return 1

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        return RemoteRunner(self.engines, self._tokenizer, self._eos_ids)

    def upstreams(self) -> Sequence[UpstreamStats]:
        return self.engines.upstreams.all

    def check(self, params: SamplingParams) -> None:
        ids = [token_id for token_id, _ in params.logit_bias]
        if ids and max(ids) >= len(self._tokenizer):
            raise BadRequest(f"logit_bias contains token id {max(ids)}, which the tokenizer does not have")
        if params.num_prompt_logprobs is not None:
            raise BadRequest("log-probabilities of a prompt are not available from an engine over HTTP")
        for upstream in self.engines.upstreams.up:
            if upstream.dialect is not None:
                upstream.dialect.check(params)


def connect(engine: str | Sequence[str], tokenizer: Any) -> Engines:
    """Find engines; their API key is in the environment.

    :raises ConfigError: no engine can be used with this tokenizer
    """
    return Engines(engine, tokenizer, os.environ.get(KEY) or None)


def load_remote(
    engine: str | Sequence[str], tokenizer: Any, given: dict[str, Any], chat_template: str | None = None
) -> Pretrained:
    """Find engines, and complete the arguments of ChatStream by what they and the tokenizer's files say.

    :param tokenizer: see `RemoteSource`
    :param chat_template: text of a Jinja template, in place of the tokenizer's own
    :param given: arguments of ChatStream; those that are None count as not given
    :raises ConfigError: no engine can be used with this tokenizer
    """
    options = {key: value for key, value in given.items() if value is not None}
    files = _tokenizer_files(tokenizer)
    if chat_template is not None:
        files.tokenizer.chat_template = checked_template(files.tokenizer, chat_template)
    engines = connect(engine, files.tokenizer)
    options.setdefault("context_len", engines.model_len or EngineConfig.context_len)
    origins = add_generation_config(options, files.generation_config)
    return Pretrained(options=options | {"engine": engines, "tokenizer": files}, origins=origins)


def _tokenizer_files(tokenizer: Any) -> TokenizerFiles:
    if tokenizer is None:
        raise ConfigError("an engine needs tokenizer: that of its model, or the folder or hub id of one")
    if isinstance(tokenizer, TokenizerFiles):
        return tokenizer
    if isinstance(tokenizer, str | os.PathLike):
        return read_tokenizer(tokenizer)
    if not hasattr(tokenizer, "decode"):
        raise ConfigError(f"tokenizer must be a loaded transformers tokenizer or a folder, not {tokenizer!r}")
    return TokenizerFiles(tokenizer, None)
