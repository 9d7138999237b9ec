"""Access log: one line for each reply that ended and for each refused request."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from typing import Any

from flask import Flask

from ..engine.outcome import Outcome
from ..engine.request import GenerationRequest
from ..errors import ChatStreamError
from ..settings import Settings
from .escape import escaped
from .origin import Origin

FIELDS = "chatstream"  # attribute of a log record that holds the line's fields

ENDED = {
    "en": "%(method)s %(route)s %(request_id)s session %(session)s ended: %(finish_reason)s, "
    "%(prompt_tokens)d + %(completion_tokens)d tokens, queued %(queue_ms)d ms, "
    "first token %(time_to_first_token_ms)s ms, total %(total_ms)d ms",
    "ja": "%(method)s %(route)s %(request_id)s セッション %(session)s 終了: %(finish_reason)s、"
    "トークン %(prompt_tokens)d + %(completion_tokens)d、待ち %(queue_ms)d ms、"
    "最初のトークン %(time_to_first_token_ms)s ms、全体 %(total_ms)d ms",
}
TRUNCATED = {"en": ", %(num_dropped_turns)d turns left out", "ja": "、省いたターン %(num_dropped_turns)d"}
REFUSED = {
    "en": "%(method)s %(route)s %(request_id)s refused: %(status)d %(code)s: %(detail)s",
    "ja": "%(method)s %(route)s %(request_id)s 拒否: %(status)d %(code)s: %(detail)s",
}


class AccessLog:
    """Access log of one app.

    Conversations appear as keyed hashes, so that a reader of the log cannot learn or guess their ids.
    """

    def __init__(self, app: Flask, settings: Settings, logger: logging.Logger) -> None:
        self._settings = settings
        self._logger = logger.getChild("access")
        secret = app.secret_key or secrets.token_bytes(32)
        self._key = secret.encode() if isinstance(secret, str) else bytes(secret)

    def ended(
        self,
        origin: Origin,
        generation: GenerationRequest,
        outcome: Outcome,
        *,
        session: str | None,  # hash of the conversation's id
        num_dropped_turns: int,
        user_input: str | None,
        reply: str,
    ) -> None:
        """Log a reply that ended, with its token counts and times."""
        fields: dict[str, Any] = {
            "event": "request",
            **self._common(origin),
            "session": session,
            "finish_reason": outcome.finish_reason.value,
            "error": outcome.error,
            "prompt_tokens": outcome.prompt_tokens,
            "cached_tokens": outcome.cached_tokens,
            "completion_tokens": outcome.completion_tokens,
            "queue_ms": _ms(outcome.queue_sec),
            "time_to_first_token_ms": _ms(outcome.first_token_sec),
            "total_ms": _ms(outcome.total_sec),
            "tokens_per_second": _rounded(outcome.tokens_per_sec),
            "num_dropped_turns": num_dropped_turns,
        }
        if self._settings.log_prompts:
            fields |= {"user_input": user_input, "reply": reply}
        template = ENDED[self._settings.locale]
        if num_dropped_turns:
            template += TRUNCATED[self._settings.locale]
        self._log(logging.INFO, template, fields)

    def refused(self, origin: Origin, error: ChatStreamError, status: int) -> None:
        """Log a refused request: a warning if the server is at fault, else for information."""
        fields = {
            "event": "refusal",
            **self._common(origin),
            "status": status,
            "code": error.code,
            "detail": str(error),
        }
        level = logging.WARNING if error.status >= 500 else logging.INFO
        self._log(level, REFUSED[self._settings.locale], fields)

    def _common(self, origin: Origin) -> dict[str, Any]:
        return {"request_id": origin.request_id, "method": origin.method, "route": origin.route}

    def hash_session(self, session: str) -> str:
        """Return the hash under which the log shows a conversation's id."""
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()[:16]

    def _log(self, level: int, template: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if self._settings.log_format == "json":
            message = json.dumps(fields, ensure_ascii=False)
        else:
            message = template % {name: "-" if value is None else value for name, value in fields.items()}
            texts = [name for name in ("error", "user_input", "reply") if fields.get(name)]
            message = " ".join([message, *(f"{name}={fields[name]!r}" for name in texts)])
        self._logger.log(level, "%s", escaped(message), extra={FIELDS: fields})


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
