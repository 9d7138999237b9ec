"""The body of POST /chat_stream: checked completely before anything is reserved or changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from .config import SamplingParams, check_int, check_names, shown
from .errors import BadRequest, ConfigError

SAMPLING_FIELDS = {
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "repetition_penalty_method",
    "seed",
    "stop",
    "max_new_tokens",
}
FIELDS = {"user_input", "regenerate"} | SAMPLING_FIELDS


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    user_input: str  # "" when regenerating
    regenerate: bool
    params: SamplingParams


def parse_chat_request(
    body: bytes | str | dict[str, Any], defaults: SamplingParams, max_input_len: int
) -> ChatRequest:
    """`defaults` fill in what the body leaves out; its max_new_tokens is also the most a body may ask for."""
    data = _load(body)
    try:
        check_names("field", data, FIELDS)
        params = _params(data, defaults)
    except ConfigError as error:
        raise BadRequest(str(error)) from error
    regenerate = data.get("regenerate", False)
    if not isinstance(regenerate, bool):
        raise BadRequest(f"regenerate must be true or false, not {shown(regenerate)}")
    given = data.get("user_input")
    is_ignored = regenerate and (given is None or isinstance(given, str))  # front ends send it along
    user_input = "" if is_ignored else _user_input(given, max_input_len)
    return ChatRequest(user_input=user_input, regenerate=regenerate, params=params)


def _load(body: bytes | str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(body, (bytes, str)):
        try:
            body = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body must be a JSON object: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(body).__name__}")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _params(data: dict[str, Any], defaults: SamplingParams) -> SamplingParams:
    given = {name: data[name] for name in SAMPLING_FIELDS if name in data}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    if isinstance(given.get("stop"), list):
        given["stop"] = tuple(given["stop"])
    if "max_new_tokens" in given:
        check_int("max_new_tokens", given["max_new_tokens"], 1, defaults.max_new_tokens)
    return replace(defaults, **given)


def _user_input(value: Any, max_len: int) -> str:
    if not isinstance(value, str):
        raise BadRequest("user_input is missing" if value is None else "user_input must be a string")
    if not value.strip():
        raise BadRequest("user_input is empty")
    if len(value) > max_len:
        raise BadRequest(f"user_input has {len(value)} characters; at most {max_len} are allowed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("user_input holds half of a surrogate pair, which is not text") from error
    if "\x00" in value:
        raise BadRequest("user_input holds a NUL character")
    return value
