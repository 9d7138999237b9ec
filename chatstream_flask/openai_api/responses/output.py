"""Output items of a response, and the events that tell how they grow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...engine.outcome import FinishReason, Outcome
from ...engine.reply_text import TokenLogprob
from ...errors import ChatStreamError
from ...reply_format.deltas import ANNOTATIONS, CALLS, Delta

Json = dict[str, Any]
COMPLETED, INCOMPLETE, IN_PROGRESS, FAILED = "completed", "incomplete", "in_progress", "failed"
QUEUED, CANCELLED = "queued", "cancelled"


class ResponseOutput:
    """Builds a response from the deltas of its reply.

    `response` is the response as it is now. Events are dictionaries as OpenAI's API reference describes them;
    each has the next sequence number.

    :param response: its fields, without status and output
    :param show_logprobs: returns log-probabilities in the format of the API
    """

    def __init__(
        self, response: Json, show_logprobs: Callable[[Sequence[TokenLogprob]], list[Json]] | None
    ) -> None:
        self.output: list[Json] = []
        status = QUEUED if response["background"] else IN_PROGRESS
        self.response = response | {"status": status, "output": self.output}
        self.num_events = 0
        self._show_logprobs = show_logprobs
        self._annotations: list[Json] = []  # of each message that follows
        self._has_started = False
        self._open: Json | None = None  # the last item, while it grows
        self._call: Any = None  # index of the call that is open

    def begin(self) -> Iterator[Json]:
        yield self._event("response.created", response=self.response)
        if self.response["background"]:
            yield self._event("response.queued", response=self.response)
        else:
            yield from self.start()

    def start(self) -> Iterator[Json]:
        """Tell once that it is generated now."""
        if not self._has_started:
            self._has_started = True
            self.response["status"] = IN_PROGRESS
            yield self._event("response.in_progress", response=self.response)

    def add(self, delta: Delta, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[Json]:
        """Add a delta; yield the events that tell it."""
        if ANNOTATIONS in delta:
            self._annotations = [{"type": each["type"], **each[each["type"]]} for each in delta[ANNOTATIONS]]
        elif CALLS in delta:
            for call in delta[CALLS]:
                yield from self._add_call(call)
        elif "reasoning_content" in delta:
            yield from self._add_text("reasoning", delta["reasoning_content"], ())
        elif delta.get("content"):
            yield from self._add_text("message", delta["content"], logprobs)

    def complete(self, outcome: Outcome) -> Iterator[Json]:
        """Complete the response; yield the events before the last one."""
        reason = outcome.finish_reason
        status = {FinishReason.STOP: COMPLETED, FinishReason.CANCELLED: CANCELLED}.get(reason, INCOMPLETE)
        yield from self._close(COMPLETED if status == COMPLETED else INCOMPLETE)
        is_cut = reason is FinishReason.LENGTH
        self.response |= {
            "status": status,
            "completed_at": int(time.time()) if status == COMPLETED else None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": _usage_of(outcome),
        }
        if outcome.failure is not None and status != CANCELLED:
            self.fail(outcome.failure)

    def end(self) -> Json:
        """Return the last event; there is none of its own for a response that was cancelled."""
        return last_event(self.response, self.num_events)

    def fail(self, error: ChatStreamError) -> None:
        """Let the response have failed."""
        self.response |= failed(str(error))

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self.num_events, **fields}
        self.num_events += 1
        return event

    # -- items ---------------------------------------------------------------------------------------

    def _add_text(self, kind: str, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Json]:
        if self._open is None or self._open["type"] != kind:
            yield from self._close(COMPLETED)
            yield from self._begin_text(kind)
        item = self._open
        assert item is not None
        part = item["content"][0]
        part["text"] += text
        if kind == "reasoning":
            yield self._of_part("response.reasoning_text.delta", delta=text)
            return
        shown = self._show_logprobs(logprobs) if self._show_logprobs else []
        part["logprobs"] += shown
        yield self._of_part("response.output_text.delta", delta=text, logprobs=shown)

    def _begin_text(self, kind: str) -> Iterator[Json]:
        if kind == "reasoning":
            item: Json = {"id": _new_id("rs"), "type": kind, "summary": [], "content": []}
            part: Json = {"type": "reasoning_text", "text": ""}
        else:
            item = {"id": _new_id("msg"), "type": kind, "role": "assistant", "content": []}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._begin(item)
        item["content"].append(part)
        yield self._of_part("response.content_part.added", part=dict(part))
        if kind == "reasoning":
            return
        part["annotations"] = list(self._annotations)
        for index, annotation in enumerate(self._annotations):
            yield self._of_part(
                "response.output_text.annotation.added", annotation_index=index, annotation=annotation
            )

    def _add_call(self, call: Json) -> Iterator[Json]:
        function = call["function"]
        if self._open is None or self._call != call["index"]:
            yield from self._close(COMPLETED)
            item = {
                "id": _new_id("fc"),
                "type": "function_call",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": "",
            }
            yield self._begin(item)
            self._call = call["index"]
        assert self._open is not None
        if piece := function.get("arguments"):
            self._open["arguments"] += piece
            yield self._of_item("response.function_call_arguments.delta", delta=piece)

    def _begin(self, item: Json) -> Json:
        item["status"] = IN_PROGRESS
        self.output.append(item)
        self._open = item
        shown = item | ({"content": []} if "content" in item else {})
        return self._event("response.output_item.added", output_index=len(self.output) - 1, item=shown)

    def _close(self, status: str) -> Iterator[Json]:
        item = self._open
        if item is None:
            return
        item["status"] = status
        if item["type"] == "function_call":
            yield self._of_item(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
            )
        else:
            part = item["content"][0]
            if item["type"] == "reasoning":
                yield self._of_part("response.reasoning_text.done", text=part["text"])
            else:
                yield self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            yield self._of_part("response.content_part.done", part=part)
        yield self._event("response.output_item.done", output_index=len(self.output) - 1, item=item)
        self._open = self._call = None

    def _of_item(self, kind: str, **fields: Any) -> Json:
        item = self.output[-1]
        return self._event(kind, item_id=item["id"], output_index=len(self.output) - 1, **fields)

    def _of_part(self, kind: str, **fields: Any) -> Json:
        return self._of_item(kind, content_index=0, **fields)


def failed(message: str) -> Json:
    """Return the fields of a response that has failed, and whose client may try again."""
    return {"status": FAILED, "error": {"code": "server_error", "message": message}}


def last_event(response: Json, sequence_number: int) -> Json:
    """Return the last event of a response that has ended."""
    kind = INCOMPLETE if response["status"] == CANCELLED else response["status"]
    return {"type": f"response.{kind}", "sequence_number": sequence_number, "response": response}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _usage_of(outcome: Outcome) -> Json:
    return {
        "input_tokens": outcome.prompt_tokens,
        "input_tokens_details": {"cached_tokens": outcome.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": outcome.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": outcome.reasoning_tokens},
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
    }
