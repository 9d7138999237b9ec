"""The dialect of vLLM, SGLang and the servers of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from ..config import MAX_LOGIT_BIAS, MAX_LOGIT_BIASES, SamplingParams
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
        self,
        prompt_ids: Sequence[int],
        request: GenerationRequest,
        max_tokens: int,
        seed: int | None,
        schema: dict[str, Any] | None,
    ) -> dict[str, Any]:
        params = request.params
        generated = prompt_ids[len(request.prompt_ids) :]
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
            "logit_bias": _biases(params, generated) or None,
            "allowed_token_ids": params.allowed_token_ids or None,
            "min_tokens": max(params.min_new_tokens - len(generated), 0) or None,
            "stop_token_ids": sorted(request.stop_ids) or None,
            "ignore_eos": request.ignores_eos or None,
            "logprobs": params.num_logprobs,
            "return_tokens_as_token_ids": None if params.num_logprobs is None else True,
            "prompt_cache_key": session_of(request),
            "structured_outputs": None if schema is None else {"json": schema},
        }
        return {name: value for name, value in body.items() if value is not None}

    def reader(self) -> Reader:
        return _CompletionsReader()

    def check(self, params: SamplingParams) -> None:
        check_common(params)


def _biases(params: SamplingParams, generated: Sequence[int]) -> dict[str, float]:
    """Return the logit biases, with the penalties for tokens that were generated before this stream.

    To its engine they are part of the prompt, which frequency and presence penalties do not count.
    """
    biases = dict(params.logit_bias)
    if params.frequency_penalty or params.presence_penalty:
        for token_id, count in Counter(generated).most_common(MAX_LOGIT_BIASES - len(biases)):
            penalty = count * params.frequency_penalty + params.presence_penalty
            biases[token_id] = biases.get(token_id, 0.0) - penalty
    limit = MAX_LOGIT_BIAS
    return {str(token_id): min(max(bias, -limit), limit) for token_id, bias in biases.items()}


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
