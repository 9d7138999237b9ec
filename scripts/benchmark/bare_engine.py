"""BareEngine: this project's engine without HTTP, created as the extension creates it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from chatstream_flask import AbstractChatPrompt, ChatStream
from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.engine.request import GenerationRequest

from .settings import Settings
from .token_times import TokenTimes

REPLY_SEC = 1200


class LastMessage(AbstractChatPrompt):
    """Prompt of the last message only, without history or template."""

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        return self.get_requester_last_msg() or ""


def make_chat_stream(settings: Settings, streams: int, context_len: int, **options: Any) -> ChatStream:
    """Return a ChatStream with a model of its own, as the engine may modify its model."""
    return ChatStream.from_pretrained(
        settings.model_folder,
        dtype=settings.dtype,
        device=settings.device,
        num_of_concurrent_executions=streams,
        num_of_generation_threads=settings.threads and min(settings.threads, streams),
        context_len=context_len,
        temperature=0,
        **{"max_new_tokens": context_len - 1, "chat_prompt_clazz": LastMessage, **options},
    )


@dataclass
class Reply:
    """A reply in progress; `wait` may be called once."""

    request: GenerationRequest
    asked_at: float
    times: TokenTimes
    ended: SimpleQueue[float] = field(default_factory=SimpleQueue)

    def wait(self) -> Outcome:
        self.ended.get(timeout=REPLY_SEC)
        outcome = self.request.outcome
        assert outcome is not None
        if outcome.finish_reason not in (FinishReason.LENGTH, FinishReason.CANCELLED):
            raise RuntimeError(f"a reply ended with {outcome}")
        return outcome


class BareEngine:
    """Submits token ids to an engine and records when each token arrives."""

    def __init__(self, settings: Settings, streams: int, context_len: int) -> None:
        self.engine = make_chat_stream(settings, streams, context_len).engine
        self.engine.start()

    def ask(self, prompt: list[int], new_tokens: int, owner: str | None = None) -> Reply:
        """Submit a prompt.

        :param owner: whose cached keys and values are reused by the next prompt that starts with this one
        """
        times, ended = TokenTimes(), SimpleQueue[float]()
        request = GenerationRequest(
            prompt,
            SamplingParams(max_new_tokens=new_tokens, temperature=0),
            ignores_eos=True,
            text_filter=times,
            cache_owner=owner,
            after_done=lambda *_: ended.put(time.perf_counter()),
            timeout_sec=REPLY_SEC,
        )
        reply = Reply(request, time.perf_counter(), times, ended)
        self.engine.submit(request, self.engine.reserve())
        return reply

    def close(self) -> None:
        self.engine.stop()
