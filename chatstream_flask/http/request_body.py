"""Reading a request: its body, and how much of a reply its client has."""

from __future__ import annotations

import json
from typing import Any

from flask import Request, current_app
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from ..config import shown
from ..errors import BadRequest, BodyTimeout, BodyTooLarge
from .disconnect import limit_silence


def read_body(request: Request, max_len: int) -> bytes:
    """Return the body of a JSON request.

    :param max_len: bytes; the app's MAX_CONTENT_LENGTH applies too, if it is lower
    :raises BadRequest: the content type is another
    :raises BodyTooLarge: it is longer
    :raises BodyTimeout: the client did not send all of it
    """
    if not request.is_json:
        raise BadRequest("the body must be JSON, sent with Content-Type: application/json")
    app_max_len = request.max_content_length
    max_len = max_len if app_max_len is None else min(app_max_len, max_len)
    request.max_content_length = max_len
    limit_silence(request.environ, current_app.config["CHATSTREAM_CLIENT_TIMEOUT_SEC"])
    try:
        data = request.get_data()
        if len(data) >= max_len and request.content_length is None:
            raise RequestEntityTooLarge  # werkzeug reads no further than the limit and says nothing of it
        return data
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(f"the body may have at most {max_len} bytes") from error
    except (ClientDisconnected, OSError) as error:
        raise BodyTimeout("the body did not arrive") from error
    except Exception as error:
        if type(error).__module__ != "gunicorn.http.errors":  # what another worker than ours lets through
            raise
        raise BadRequest(f"the body is malformed: {error}") from error


def load_json(body: bytes | str, what: str) -> Any:
    """Return the value that a JSON text has (RFC 8259: UTF-8, without a byte order mark).

    :param what: what the text must be, for the message
    :raises BadRequest: it is something else
    """
    try:
        text = body.decode() if isinstance(body, bytes) else body
        return json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body must be {what}: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_offset(request: Request, num_chars: int | None) -> int:
    """Return how many characters of a reply its reader has: `Last-Event-ID`, else `?offset=`, else 0.

    :param num_chars: how many the reply has; None: unknown

    :raises BadRequest: it is not a number, or more than the reply has
    """
    given = request.headers.get("Last-Event-ID") or request.args.get("offset") or "0"
    is_number = given.isascii() and given.isdecimal() and len(given) <= 12
    if not is_number or (num_chars is not None and int(given) > num_chars):
        known = "" if num_chars is None else f", 0 to {num_chars}"
        raise BadRequest(
            f"Last-Event-ID must be a number of characters that this reply has{known}, not {shown(given)}"
        )
    return int(given)
