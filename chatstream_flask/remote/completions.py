"""The dialect of vLLM, SGLang and the servers of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from ..config import SamplingParams
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from .dialect import Part, ProtocolError, Reader, check_common, session_of

ID_NAME = "token_id:"  # prefix of tokens that are named by their ids


class _Logprobs(Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(Struct):
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    error: Any = None


@dataclass(frozen=True)
class CompletionsDialect:
    """`/v1/completions` with `return_token_ids`: vLLM, SGLang, and servers of this package."""

    model: str
    path: str = field(default="/v1/completions", init=False)

    def body(
        self, prompt_ids: Sequence[int], request: GenerationRequest, max_tokens: int, seed: int | None
    ) -> dict[str, Any]:
        params = request.params
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt_ids,
            "max_tokens": max_tokens,
            "stream": True,
            "return_token_ids": True,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or -1,
            "min_p": params.min_p,
            "repetition_penalty": params.repetition_penalty,
            "frequency_penalty": params.frequency_penalty,
            "presence_penalty": params.presence_penalty,
            "seed": seed,
            "logit_bias": {str(token_id): bias for token_id, bias in params.logit_bias} or None,
            "allowed_token_ids": params.allowed_token_ids or None,
            "min_tokens": max(params.min_new_tokens - (params.max_new_tokens - max_tokens), 0) or None,
            "stop_token_ids": sorted(request.stop_ids) or None,
            "ignore_eos": request.ignores_eos or None,
            "logprobs": params.num_logprobs,
            "return_tokens_as_token_ids": None if params.num_logprobs is None else True,
            "prompt_cache_key": session_of(request),
        }
        return {name: value for name, value in body.items() if value is not None}

    def reader(self) -> Reader:
        return _CompletionsReader()

    def check(self, params: SamplingParams) -> None:
        check_common(params)


class _CompletionsReader:
    _decoder = Decoder(_Chunk)

    def read(self, data: bytes) -> Part:
        try:
            chunk = self._decoder.decode(data)
        except DecodeError as error:
            raise ProtocolError(f"it sent something else than a completion: {error}") from error
        if chunk.error is not None:
            raise ProtocolError(f"it reports {chunk.error}")
        if not chunk.choices:  # usage only
            return Part([], [])
        (choice, *_) = chunk.choices
        if choice.token_ids is None:
            raise ProtocolError("it sent a choice without token_ids")
        end = choice.finish_reason
        if end not in (None, "stop", "length"):
            raise ProtocolError(f"it ended the reply with finish_reason {end!r}")
        return Part(choice.token_ids, _logprobs_of(choice.logprobs), end)  # type: ignore[arg-type]


def _logprobs_of(given: _Logprobs | None) -> list[TokenLogprob]:
    if given is None:
        return []
    tops = given.top_logprobs or [None] * len(given.tokens)
    return [
        TokenLogprob(
            _id_of(token),
            logprob or 0.0,
            tuple((_id_of(name), value) for name, value in (top or {}).items()),
        )
        for token, logprob, top in zip(given.tokens, given.token_logprobs, tops, strict=True)
    ]


def _id_of(name: str) -> int:
    if not name.startswith(ID_NAME):
        raise ProtocolError(f"it names a token {name!r}, not by its id")
    return int(name.removeprefix(ID_NAME))
