"""Every error raised on purpose; each class knows its HTTP status and a code for programs.

ChatStreamError
├── ConfigError            500  a wrong or contradictory setting; raised at start, never by a request
├── UnsupportedModel       500  a model that could not be served rightly; raised at start
├── BadRequest             400  the request says something that is not allowed
│   ├── BodyTooLarge       413  more bytes than are read
│   ├── BodyTimeout        408  the client stopped in the middle of it
│   └── PromptTooLong      400  one turn alone does not fit into the context
├── NotFound               404  there is no such thing, or it is not the caller's
├── ConversationBusy       409  the conversation already has a reply in the making
├── TooManyRequests        429  running and waiting places are all taken, or all that one visitor may have
├── NotAccepting           503  stopping or stopped
│   └── EngineBroken       503  a generation thread hung or died and could not be replaced
├── StoreUnavailable       503  conversations cannot be read or written
└── GenerationError        500  generation failed; the conversation is as it was before
"""

from __future__ import annotations


class ChatStreamError(Exception):
    status = 500
    code = "internal_error"


class ConfigError(ChatStreamError, ValueError):
    code = "config_error"


class UnsupportedModel(ChatStreamError):
    code = "unsupported_model"


class BadRequest(ChatStreamError):
    status = 400
    code = "bad_request"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class BodyTimeout(BadRequest):
    status = 408
    code = "body_timeout"


class PromptTooLong(BadRequest):
    code = "prompt_too_long"


class NotFound(ChatStreamError):
    status = 404
    code = "not_found"


class ConversationBusy(ChatStreamError):
    status = 409
    code = "conversation_busy"


class TooManyRequests(ChatStreamError):
    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, retry_after: int = 1, reason: str = "queue_full") -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds, from measured completions
        self.reason = reason  # or "visitor_running", "visitor_waiting", "visitor_tokens", "readers"


class NotAccepting(ChatStreamError):
    status = 503
    code = "not_accepting"


class EngineBroken(NotAccepting):
    code = "engine_broken"


class StoreUnavailable(ChatStreamError):
    status = 503
    code = "store_unavailable"


class GenerationError(ChatStreamError):
    code = "generation_failed"
