"""The JSON body of POST /chat_stream, checked completely before anything is reserved or changed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from ..config import SamplingParams, check_int, check_names, shown
from ..errors import BadRequest, ConfigError
from ..http.request_body import load_json
from ..prompts.template_params import TemplateParams

Params = TypeVar("Params", SamplingParams, TemplateParams)

TEMPLATE_FIELDS = tuple(TemplateParams.__dataclass_fields__)
SESSION_FIELDS = {  # settings that a conversation may store
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "repetition_penalty_method",
    "seed",
    "max_new_tokens",
    "max_reasoning_tokens",
    *TEMPLATE_FIELDS,
}
SAMPLING_FIELDS = SESSION_FIELDS | {"stop"}
FIELDS = SAMPLING_FIELDS | {"user_input", "regenerate", "edited_message_id"}
MAX_CONFIRMATION_LEN = 1024  # bytes of a body
MAX_MESSAGE_ID_LEN = 64  # characters


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked body of POST /chat_stream."""

    user_input: str  # "" when regenerating
    regenerate: bool
    edited_message_id: str | None  # reply of the turn that user_input replaces, with all that follows
    own_params: dict[str, Any]  # checked; only for this reply

    def params(self, defaults: SamplingParams, kept: dict[str, Any]) -> SamplingParams:
        """Merge the constructor's settings, those stored in the conversation and the request's own.

        Later ones take precedence.
        """
        return _merged(merge_kept(defaults, kept), self.own_params)

    def template_params(self, defaults: TemplateParams, kept: dict[str, Any]) -> TemplateParams:
        """Merge the arguments of the chat template in the same way."""
        return _merged(merge_kept_template(defaults, kept), self.own_params)


def parse_chat_request(
    body: bytes | str | dict[str, Any], defaults: SamplingParams, max_input_len: int
) -> ChatRequest:
    """Parse and check a body.

    :param body: JSON, or the object it holds
    :param defaults: the constructor's settings; max_new_tokens is also the upper limit for the body's
    :param max_input_len: characters of user_input
    :raises BadRequest: what is wrong
    """
    data = load_object(body)
    own_params = _checked_params(data, defaults, FIELDS)
    regenerate = data.get("regenerate", False)
    if not isinstance(regenerate, bool):
        raise BadRequest(f"regenerate must be true or false, not {shown(regenerate)}")
    given = data.get("user_input")
    is_ignored = regenerate and (given is None or isinstance(given, str))  # some front ends send it along
    user_input = "" if is_ignored else _user_input(given, max_input_len)
    return ChatRequest(
        user_input=user_input,
        regenerate=regenerate,
        edited_message_id=_edited_message_id(data.get("edited_message_id"), regenerate),
        own_params=own_params,
    )


def parse_generation_params(given: dict[str, Any], defaults: SamplingParams) -> dict[str, Any]:
    """Check the settings that a conversation is to store.

    :raises BadRequest: a name or a value is not allowed
    """
    if not isinstance(given, dict):
        raise BadRequest(f"generation params must be a JSON object, not {type(given).__name__}")
    return _checked_params(given, defaults, SESSION_FIELDS)


def merge_kept(defaults: SamplingParams, kept: dict[str, Any]) -> SamplingParams:
    """Merge stored settings of a conversation into the defaults.

    Stored limits are lowered to the defaults, which may have changed since.
    """
    known = {name: value for name, value in kept.items() if name in SESSION_FIELDS}
    known["max_new_tokens"] = min(
        known.get("max_new_tokens", defaults.max_new_tokens), defaults.max_new_tokens
    )
    limits = (known.get("max_reasoning_tokens"), defaults.max_reasoning_tokens)
    known["max_reasoning_tokens"] = min((limit for limit in limits if limit is not None), default=None)
    return _merged(defaults, known)


def merge_kept_template(defaults: TemplateParams, kept: dict[str, Any]) -> TemplateParams:
    """Merge stored arguments of the chat template into the defaults."""
    return _merged(defaults, {name: kept[name] for name in TEMPLATE_FIELDS if name in kept})


def _checked_params(data: dict[str, Any], defaults: SamplingParams, allowed: set[str]) -> dict[str, Any]:
    given = {name: data[name] for name in SAMPLING_FIELDS if name in data}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    if isinstance(given.get("stop"), list):
        given["stop"] = tuple(given["stop"])
    try:
        check_names("field", data, allowed)
        if "max_new_tokens" in given:
            check_int("max_new_tokens", given["max_new_tokens"], 1, defaults.max_new_tokens)
        if (most := defaults.max_reasoning_tokens) is not None and "max_reasoning_tokens" in given:
            check_int("max_reasoning_tokens", given["max_reasoning_tokens"], 0, most)
    except ConfigError as error:
        raise BadRequest(str(error)) from error
    _merged(defaults, given)
    _merged(TemplateParams(), given)
    return given


def _merged(params: Params, given: dict[str, Any]) -> Params:
    """Return the params with those of the given values that they have a field for."""
    names = {field.name for field in fields(params)}
    try:
        return replace(params, **{name: value for name, value in given.items() if name in names})
    except ConfigError as error:
        raise BadRequest(str(error)) from error


def parse_confirmation(body: bytes) -> bool:
    """Parse the body that confirms or declines a function call.

    :raises BadRequest: what is wrong
    """
    data = load_object(body)
    if set(data) != {"confirm"} or not isinstance(data["confirm"], bool):
        raise BadRequest('the body must be {"confirm": true} or {"confirm": false}')
    return data["confirm"]


def load_object(body: bytes | str | dict[str, Any]) -> dict[str, Any]:
    """Parse a JSON object.

    :raises BadRequest: it is something else
    """
    if isinstance(body, (bytes, str)):
        body = load_json(body, "a JSON object")
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(body).__name__}")
    return body


def _edited_message_id(value: Any, regenerate: bool) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_MESSAGE_ID_LEN:
        raise BadRequest(f"edited_message_id must be the message_id of a reply, not {shown(value)}")
    if regenerate:
        raise BadRequest("regenerate and edited_message_id exclude each other")
    return value


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
        raise BadRequest("user_input has an unpaired surrogate, which is not valid text") from error
    if "\x00" in value:
        raise BadRequest("user_input has a NUL character")
    return value
