"""How a generation request ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import ChatStreamError, GenerationError, GenerationTimeout, NotAccepting, ReplyCancelled


class FinishReason(Enum):
    """Why a reply ended; OpenAI's words where they exist."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"  # the server is stopping
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Final state of a request; its readers get it exactly once, after all text.

    Times are seconds since the request arrived.
    """

    finish_reason: FinishReason
    error: str | None = None  # a sentence for the client, set if and only if the reason is ERROR
    error_class: type[ChatStreamError] = GenerationError  # of that error
    prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens that were taken from the prefix cache
    completion_tokens: int = 0  # reasoning included
    reasoning_tokens: int = 0
    reasoning_sec: float | None = None  # from the first to the last token of the reasoning
    is_started: bool = False  # it held a slot
    queue_sec: float = 0.0  # until prefill started, or until the end if it never did
    first_token_sec: float | None = None
    total_sec: float = 0.0

    @property
    def is_success(self) -> bool:
        return self.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)

    @property
    def failure(self) -> ChatStreamError | None:
        """Why the reply is incomplete, as an error for its client; None if it is complete."""
        match self.finish_reason:
            case FinishReason.STOP | FinishReason.LENGTH:
                return None
            case FinishReason.ERROR:
                return self.error_class(self.error or "generation failed")
            case FinishReason.TIMEOUT:
                return GenerationTimeout("the reply took too long and was cancelled")
            case FinishReason.SHUTDOWN:
                return NotAccepting("the server is stopping and has cancelled the reply")
            case FinishReason.CANCELLED:
                return ReplyCancelled("the reply was cancelled by another request")
            case FinishReason.DISCONNECTED:
                return ReplyCancelled("the reply was cancelled as its client had disconnected")

    @property
    def phase(self) -> str:
        """The phase in which the request ended: "waiting", "prefill" or "decode"."""
        if self.first_token_sec is not None:
            return "decode"
        return "prefill" if self.is_started else "waiting"

    @property
    def tokens_per_sec(self) -> float | None:
        """Decode rate, without the first token and the time before it; None below two tokens."""
        if self.first_token_sec is None or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / max(self.total_sec - self.first_token_sec, 1e-9)
