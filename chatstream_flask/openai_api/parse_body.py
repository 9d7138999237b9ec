"""Parsing of request bodies; errors name the wrong field."""

from __future__ import annotations

import codecs
import re
from typing import Any, TypeVar

import msgspec

from ..config import shown
from .errors import ApiError
from .other_fields import REFUSED, REFUSED_FOR_CHAT, REFUSED_FOR_TEXT
from .responses.schema import HARMLESS as HARMLESS_FOR_RESPONSES
from .responses.schema import REFUSED as REFUSED_FOR_RESPONSES
from .responses.schema import ResponsesBody
from .schema import ChatBody, CompletionBody

BodyT = TypeVar("BodyT", bound=msgspec.Struct)

# Fields of chat completions that responses do not have.
ONLY_FOR_CHAT = set(ChatBody.__struct_fields__) - {*ResponsesBody.__struct_fields__, *HARMLESS_FOR_RESPONSES}

REFUSED_FIELDS: dict[type[msgspec.Struct], dict[str, tuple[Any, ...]]] = {
    ChatBody: REFUSED | REFUSED_FOR_CHAT,
    CompletionBody: REFUSED | REFUSED_FOR_TEXT,
    ResponsesBody: dict.fromkeys(ONLY_FOR_CHAT, ()) | REFUSED | REFUSED_FOR_RESPONSES,
}


def parse_body(body: bytes, kind: type[BodyT]) -> BodyT:
    """Parse and check a body.

    :raises ApiError: which field is wrong, and what is allowed
    """
    return check_body(decode_body(body), kind)


def decode_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    :raises ApiError: it is something else
    """
    if body.startswith(codecs.BOM_UTF8):
        message = "the body begins with a byte order mark; send UTF-8 without one"
        raise ApiError(message, code="invalid_json")
    try:
        data = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise ApiError(f"the body is not UTF-8: {error.reason}", code="invalid_json") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError(f"the body must be a JSON object: {error}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise ApiError(f"the body must be a JSON object, not {shown(data)}", code="invalid_json")
    return data


def check_body(data: dict[str, Any], kind: type[BodyT]) -> BodyT:
    """Return the fields of a body.

    :raises ApiError: which field is wrong, and what is allowed
    """
    for name, harmless in REFUSED_FIELDS.get(kind, {}).items():
        if data.get(name) is not None and data[name] not in harmless:
            raise ApiError(f"{name} is not supported", param=name, code="unsupported_parameter")
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _wrong_field(str(error)) from error


def _wrong_field(message: str) -> ApiError:
    """Make an error of msgspec's message, such as "Expected `float` <= 2.0 - at `$.temperature`"."""
    sentence, _, place = message.partition(" - at `$")
    param = place.rstrip("`").lstrip(".") or None
    if missing := re.fullmatch("Object missing required field `(.*)`", sentence):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return ApiError(f"{param} is missing", param=param, code="missing_required_parameter")
    sentence = sentence[:1].lower() + sentence[1:].replace("`", "")
    return ApiError(f"{param or 'the body'}: {sentence}", param=param)
