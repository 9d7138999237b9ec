"""The functions that the model calls in one reply."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from flask import copy_current_request_context
from werkzeug.exceptions import HTTPException

from ..engine.outcome import FinishReason
from ..errors import ChatStreamError, HookFailed
from .registry import Hooks
from .reply_context import Message, ReplyContext
from .tools import Tool, WrongArguments, text_of_result

CONFIRM_SEC = 120.0  # in which a visitor confirms a call
POLL_SEC = 0.1  # interval at which it is looked whether the reply has ended meanwhile

Step = dict[str, Any]


class ToolCalls:
    """Calls functions one after the other, and tells each change of a step.

    A step has `id`, `name`, `arguments`, `status` and, when it has ended, `result`. The status is "confirm"
    (waits for the visitor), "running", "done", "failed" or "declined".

    :param tell: gets each step whenever it changes
    :param stop_reason: returns why the reply must end; None if it need not
    :param in_context: calls a function in the context of the request
    """

    def __init__(
        self,
        hooks: Hooks,
        context: ReplyContext,
        tools: Mapping[str, Tool],
        *,
        tell: Callable[[Step], None],
        stop_reason: Callable[[], FinishReason | None],
        in_context: Callable[..., Any],
    ) -> None:
        self._hooks = hooks
        self._context = context
        self._tools = tools
        self._tell = tell
        self._stop_reason = stop_reason
        self._in_context = in_context
        self._num_calls: Counter[str] = Counter()
        self._answered = threading.Condition()  # guards the next
        self._answers: dict[str, bool | None] = {}  # by step; None: not answered yet
        self.steps: list[Step] = []  # that have ended

    def run(self, calls: Sequence[dict[str, Any]]) -> list[Message]:
        """Call the functions that the model has asked for, and return the messages with the results."""
        return [
            {
                "role": "tool",
                "tool_call_id": call["id"],
                "name": call["function"]["name"],
                "content": self._run(call["id"], **call["function"]),
            }
            for call in calls
        ]

    def answer(self, step_id: str, *, is_confirmed: bool) -> bool:
        """Confirm a step or decline it; return False if it does not wait for that."""
        with self._answered:
            if step_id not in self._answers:
                return False
            self._answers[step_id] = is_confirmed
            self._answered.notify_all()
            return True

    def _run(self, step_id: str, name: str, arguments: str) -> str:
        step: Step = {"id": step_id, "name": name, "arguments": _decoded(arguments)}
        tool = self._tools.get(name)
        if tool is None:
            return self._end(step, "failed", f"there is no function {name}")
        self._num_calls[name] += 1
        if self._num_calls[name] > tool.max_calls:
            return self._end(step, "failed", f"{name} cannot be called again in this reply")
        if not tool.may_call(self._context.visitor):
            return self._end(step, "failed", f"{name} was called too often in this minute")
        try:
            call = tool.bind(arguments, self._context)
        except WrongArguments as error:
            return self._end(step, "failed", f"wrong arguments: {error}")
        if tool.confirm and not self._is_confirmed(step):
            return self._end(step, "declined", "the user has not agreed to this call")
        self._tell(step | {"status": "running"})
        return self._end(step, *self._call(tool, call))

    def _end(self, step: Step, status: str, result: str) -> str:
        step |= {"status": status, "result": result}
        self.steps.append(step)
        self._tell(step)
        return result

    def _is_confirmed(self, step: Step) -> bool:
        deadline = time.monotonic() + CONFIRM_SEC
        with self._answered:
            self._answers[step["id"]] = None
        self._tell(step | {"status": "confirm"})
        with self._answered:
            while self._answers[step["id"]] is None and time.monotonic() < deadline:
                if self._stop_reason():
                    break
                self._answered.wait(POLL_SEC)
            return self._answers.pop(step["id"]) is True

    def _call(self, tool: Tool, call: Callable[[], Any]) -> tuple[str, str]:
        """Call a function in a thread of its own, which is left behind if it takes too long."""
        if not tool.begin():
            return "failed", "too many calls of this function are running"
        ended = threading.Event()
        told = [("failed", "the function failed")]

        def work() -> None:
            try:
                told[0] = ("done", text_of_result(self._hooks.run("tool", call)))
            except HTTPException as error:
                told[0] = ("failed", error.description or error.name)
            except ChatStreamError as error:
                if not isinstance(error, HookFailed):
                    told[0] = ("failed", str(error))
            finally:
                tool.end()
                ended.set()

        target = self._in_context(lambda: copy_current_request_context(work))
        threading.Thread(target=target, name=f"tool {tool.name}", daemon=True).start()
        deadline = time.monotonic() + tool.timeout_sec
        while not ended.wait(min(POLL_SEC, max(deadline - time.monotonic(), 0))):
            if time.monotonic() >= deadline or self._stop_reason():
                return "failed", "the function took too long"
        return told[0]


def _decoded(arguments: str) -> Any:
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(arguments or "{}")
    return arguments


def for_template(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call as chat templates expect it: most write the JSON of its arguments themselves."""
    function = call["function"]
    function = function | {"arguments": _decoded(function["arguments"])}
    return {"id": call["id"], "type": "function", "function": function}
