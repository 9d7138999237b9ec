"""probe: what an engine speaks and serves, found by generating one token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import aiohttp

from ..errors import ConfigError
from .client import client_session
from .completions import CompletionsDialect
from .dialect import Dialect
from .llama_cpp import LlamaCppDialect

# Tokenizers differ in how they divide it: digits, capitals, accents, several scripts, bytes of a character.
TEXT = "The year 2026: naïve Größe, 日本語 🙂\n\tend"
PROBE_SEC = 60.0  # the first token of an engine that has just started may take long


@dataclass(frozen=True, kw_only=True)
class Probed:
    """An engine that works."""

    dialect: Dialect
    model_name: str
    model_len: int | None  # tokens of prompt and reply together; None: it does not tell


class Vocabulary:
    """The tokenizer that an engine must have, too."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def check(self, token_ids: Sequence[int]) -> None:
        """Check the ids that an engine has made of `TEXT`.

        :raises ConfigError: this tokenizer makes something else of them
        """
        if list(token_ids)[-len(self.encode(TEXT)) :] == self.encode(TEXT):
            return
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if text.strip() != TEXT:
            raise ConfigError("its tokenizer is another one than the given tokenizer: it has other token ids")


async def probe(url: str, key: str | None, vocabulary: Vocabulary) -> Probed:
    """Ask an engine for its model and for one token.

    :raises ConfigError: it cannot be used, or not now; the message does not name it
    """
    async with client_session(key) as session:
        try:
            return await asyncio.wait_for(_Probe(session, url, vocabulary).run(), PROBE_SEC)
        except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError, OSError) as error:
            raise ConfigError(f"it does not answer: {error or type(error).__name__}") from error


class _Probe:
    def __init__(self, session: Any, url: str, vocabulary: Vocabulary) -> None:
        self._session = session
        self._url = url
        self._vocabulary = vocabulary

    async def run(self) -> Probed:
        model = await self._model()
        name = str(model.get("id") or "")
        body = {"model": name, "prompt": TEXT, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
        status, answer = await self._ask("POST", "/v1/completions", body)
        if status == 200 and (ids := _prompt_ids(answer)):
            self._vocabulary.check(ids)
            model_len = model.get("max_model_len")
            return Probed(
                dialect=CompletionsDialect(name),
                model_name=name,
                model_len=model_len if isinstance(model_len, int) else None,
            )
        if status in (429, 500, 502, 503, 504, 529):
            raise ConfigError(f"it answers {status}: {_message_of(answer)}")
        return await self._llama_cpp(name)

    async def _model(self) -> dict[str, Any]:
        status, answer = await self._ask("GET", "/v1/models")
        match answer:
            case {"data": [dict(model), *_]} if status == 200:
                return model
        if status == 404:
            return {}
        raise ConfigError(f"GET /v1/models answers {status}: {_message_of(answer)}")

    async def _llama_cpp(self, name: str) -> Probed:
        status, props = await self._ask("GET", "/props")
        match props:
            case {"default_generation_settings": {"n_ctx": int(model_len)}} if status == 200:
                pass
            case _:
                _no_ids()
        _, answer = await self._ask("POST", "/tokenize", {"content": TEXT})
        ids = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(ids, list):
            _no_ids()
        self._vocabulary.check(ids)
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "return_tokens": True}
        status, answer = await self._ask("POST", "/completion", body)
        match answer:
            case {"tokens": [int(), *_]} if status == 200:
                return Probed(
                    dialect=LlamaCppDialect(self._vocabulary.encode),
                    model_name=name.rpartition("/")[2].removesuffix(".gguf"),
                    model_len=model_len,
                )
        raise ConfigError(f"POST /completion answers {status}: {_message_of(answer)}")

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        async with self._session.request(method, self._url + path, json=body) as response:
            if response.status in (401, 403):
                raise ConfigError("it refuses the key: set CHATSTREAM_ENGINE_API_KEY to the one that it has")
            try:
                return response.status, await response.json(content_type=None)
            except ValueError:
                return response.status, None


def _prompt_ids(answer: Any) -> list[int] | None:
    match answer:
        case {"choices": [{"token_ids": [*_], "prompt_token_ids": [*ids]}, *_]}:
            return ids
    return None


def _no_ids() -> NoReturn:
    raise ConfigError(
        "it gives no token ids: an engine must be vLLM, SGLang, llama.cpp's server, or a server of this "
        "package"
    )


def _message_of(answer: Any) -> str:
    match answer:
        case {"error": {"message": str(message)}} | {"message": str(message)}:
            return message[:300]
    return "no message"
