"""All errors that this package raises on purpose, each with an HTTP status and a code for programs.

ChatStreamError
├── ConfigError            500  a setting is wrong, or contradicts another one; raised at set-up
│   └── NoChatTemplate     500  the tokenizer has no chat template, and nothing else writes the prompts
├── UnsupportedModel       500  the model cannot be served correctly; raised at set-up
├── BadRequest             400  the request is not valid
│   ├── BodyTooLarge       413  the body has more bytes than are allowed
│   ├── BodyTimeout        408  the client did not send the whole body in time
│   └── PromptTooLong      400  the prompt does not fit into the context
├── OriginNotAllowed       403  the request comes from a web page of another origin
├── Refused                403  a function of the app has refused the request, or ended the reply
├── NotFound               404  there is no such object, or it belongs to somebody else
├── ConversationBusy       409  the conversation already has a running reply
├── TooManyConversations   409  the visitor has as many conversations as are allowed
├── ReplyCancelled         409  the reply was cancelled, or its client has disconnected
├── HostNotAllowed         421  the request names a host that this server does not answer to
├── TooManyRequests        429  the queue is full, or the visitor has reached a limit
├── NotAccepting           503  the server is stopping or stopped
│   ├── EngineFailing      503  the model fails at each step, and its generation threads are being replaced
│   └── EngineBroken       503  a generation thread hung, died or failed and could not be replaced
├── StoreUnavailable       503  the conversation store cannot be read or written
│   └── InvalidRecord      503  a conversation cannot be stored as JSON, or its record is damaged
├── GenerationTimeout      503  the reply took longer than CHATSTREAM_REQUEST_TIMEOUT_SEC
├── HookFailed             500  a function of the app that takes part in replies failed
└── GenerationError        500  generation failed; the conversation is as it was before
    └── EngineUnavailable  503  no engine can continue the reply; the conversation keeps its part
"""

from __future__ import annotations


class ChatStreamError(Exception):
    """Base class of all errors of this package."""

    status = 500
    code = "internal_error"


class ConfigError(ChatStreamError, ValueError):
    """A setting is wrong, or contradicts another one."""

    code = "config_error"


class NoChatTemplate(ConfigError):
    """The tokenizer has no chat template, and nothing else writes the prompts."""


class UnsupportedModel(ChatStreamError):
    """The model cannot be served correctly."""

    code = "unsupported_model"


class BadRequest(ChatStreamError):
    """The request is not valid.

    `num_tokens` is how many tokens its prompt has if it had to be tokenized to know that, else 0.
    """

    status = 400
    code = "bad_request"
    num_tokens = 0


class BodyTooLarge(BadRequest):
    """The request body has more bytes than are allowed."""

    status = 413
    code = "body_too_large"


class BodyTimeout(BadRequest):
    """The client did not send the whole body in time."""

    status = 408
    code = "body_timeout"


class PromptTooLong(BadRequest):
    """The prompt does not fit into the context."""

    code = "prompt_too_long"

    def __init__(self, message: str, num_tokens: int = 0) -> None:
        super().__init__(message)
        self.num_tokens = num_tokens


class OriginNotAllowed(ChatStreamError):
    """The request comes from a web page of another origin."""

    status = 403
    code = "origin_not_allowed"


class Refused(ChatStreamError):
    """A function of the app has refused the request, or ended the reply; the words are the app's."""

    status = 403
    code = "refused"


class NotFound(ChatStreamError):
    """There is no such object, or it belongs to somebody else."""

    status = 404
    code = "not_found"


class ConversationBusy(ChatStreamError):
    """The conversation already has a running reply."""

    status = 409
    code = "conversation_busy"


class TooManyConversations(ChatStreamError):
    """The visitor has as many conversations as are allowed."""

    status = 409
    code = "too_many_conversations"


class ReplyCancelled(ChatStreamError):
    """The reply was cancelled, or its client has disconnected."""

    status = 409
    code = "cancelled"


class HostNotAllowed(ChatStreamError):
    """The request names a host that this server does not answer to."""

    status = 421
    code = "host_not_allowed"


class TooManyRequests(ChatStreamError):
    """The queue is full, or the visitor has reached a limit.

    `retry_after` is the estimated number of seconds after which to try again. `reason` is "queue_full",
    "visitor_running", "visitor_waiting", "visitor_tokens" or "readers".
    """

    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, retry_after: int = 1, reason: str = "queue_full") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = reason


class NotAccepting(ChatStreamError):
    """The server is stopping or stopped."""

    status = 503
    code = "not_accepting"


class EngineFailing(NotAccepting):
    """The model fails at each step, and its generation threads are being replaced."""

    code = "engine_failing"


class EngineBroken(NotAccepting):
    """A generation thread hung, died or failed at each step, and could not be replaced."""

    code = "engine_broken"


class StoreUnavailable(ChatStreamError):
    """The conversation store cannot be read or written."""

    status = 503
    code = "store_unavailable"


class InvalidRecord(StoreUnavailable):
    """A conversation cannot be stored as JSON, or its record is damaged; trying again does not help."""


class GenerationTimeout(ChatStreamError):
    """The reply took longer than CHATSTREAM_REQUEST_TIMEOUT_SEC."""

    status = 503
    code = "timeout"


class HookFailed(ChatStreamError):
    """A function of the app that takes part in replies failed; the log says how."""

    code = "hook_failed"


class GenerationError(ChatStreamError):
    """Generation failed; the conversation is as it was before."""

    code = "generation_failed"


class EngineUnavailable(GenerationError):
    """No engine on another machine can begin or continue the reply; the conversation keeps its part."""

    status = 503
    code = "engine_unavailable"
