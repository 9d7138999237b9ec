"""The dialect of llama.cpp's server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from ..config import SamplingParams
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from ..errors import BadRequest
from .dialect import Part, ProtocolError, Reader, check_common

Encode = Callable[[str], list[int]]  # a text to token ids, without added special tokens


class _TopLogprob(Struct):
    id: int
    logprob: float


class _Probability(_TopLogprob):
    top_logprobs: list[_TopLogprob] = []


class _LlamaEvent(Struct):
    tokens: list[int] = []
    content: str = ""
    tokens_predicted: int = 0
    stop: bool = False
    stop_type: str = ""
    completion_probabilities: list[_Probability] = []
    error: Any = None


@dataclass(frozen=True)
class LlamaCppDialect:
    """`/completion` of llama.cpp's server."""

    encode: Encode
    path: str = field(default="/completion", init=False)

    def body(
        self,
        prompt_ids: Sequence[int],
        request: GenerationRequest,
        max_tokens: int,
        seed: int | None,
        schema: dict[str, Any] | None,
    ) -> dict[str, Any]:
        params = request.params
        has_penalty = params.repetition_penalty or params.frequency_penalty or params.presence_penalty
        body: dict[str, Any] = {
            "prompt": prompt_ids,
            "n_predict": max_tokens,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": True,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or 0,
            "min_p": params.min_p,
            "repeat_penalty": params.repetition_penalty or 1.0,
            "repeat_last_n": len(prompt_ids) + max_tokens if has_penalty else None,  # its default is 64
            "frequency_penalty": params.frequency_penalty,
            "presence_penalty": params.presence_penalty,
            "seed": seed,
            "logit_bias": list(params.logit_bias) or None,
            "ignore_eos": request.ignores_eos or None,
            "n_probs": params.num_logprobs,
            "json_schema": schema,
        }
        return {name: value for name, value in body.items() if value is not None}

    def reader(self) -> Reader:
        return _LlamaReader(self.encode)

    def check(self, params: SamplingParams) -> None:
        check_common(params)
        if params.allowed_token_ids or params.min_new_tokens:
            raise BadRequest(
                "allowed_token_ids and min_tokens are not supported: llama.cpp's server has none"
            )
        if params.num_logprobs == 0:
            raise BadRequest("llama.cpp's server gives log-probabilities only with those of other tokens")


class _LlamaReader:
    """Reads the events of a stream, and restores the ids that the server leaves out.

    For a character of several tokens it sends only the last of them, with the text of all (seen in October
    2026): tokens_predicted tells how many there were.
    """

    _decoder = Decoder(_LlamaEvent)

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._num_ids = 0

    def read(self, data: bytes) -> Part:
        try:
            event = self._decoder.decode(data)
        except DecodeError as error:
            raise ProtocolError(f"it sent something else than a completion: {error}") from error
        if event.error is not None:
            raise ProtocolError(f"it reports {event.error}")
        ids = event.tokens
        num_new = event.tokens_predicted - self._num_ids
        if ids and num_new > len(ids):
            restored = self._encode(event.content)[-num_new:]
            ids = restored if restored[-1:] == ids[-1:] else ids
        self._num_ids = max(event.tokens_predicted, self._num_ids)
        logprobs = [
            TokenLogprob(it.id, it.logprob, tuple((top.id, top.logprob) for top in it.top_logprobs))
            for it in event.completion_probabilities
        ]
        if not event.stop:
            return Part(ids, logprobs)
        return Part(ids, [], "length" if event.stop_type == "limit" else "stop")
