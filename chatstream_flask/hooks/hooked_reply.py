"""One reply on its way through the hooks and tools of an app."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..engine.engine import Engine
from ..engine.outcome import FinishReason, Outcome
from ..engine.reasoning import Piece
from ..engine.request import GenerationRequest
from ..errors import ChatStreamError, HookFailed
from ..reply_format.deltas import CALLS, Delta
from ..reply_format.reply_parser import ReplyParser, TextReply
from .in_request import InRequest
from .registry import Hooks
from .reply_context import Message, ReplyContext
from .shown_text import ShownText
from .text_stages import TextStages
from .tool_calls import Step, ToolCalls, for_template
from .tools import Tool
from .total_outcome import total_outcome

Follow = Callable[[Sequence[Message]], GenerationRequest]
PUMP_AFTER_SEC = 0.5  # after which nobody seems to read the reply here any more
MAX_GENERATIONS = 16  # of one reply; after the last one its calls are not followed


class HookedReply:
    """Runs the hooks and tools for one reply; made in the context of its request.

    `on_text` is called by whoever reads the reply: the thread of the request, or of one that has come back.
    What nobody has read is let through at its end, by the finisher. So a hook is never called by a thread
    that generates, and by one thread at a time.

    When the model calls functions, its generation ends; the finisher calls them, and another generation
    continues the reply, in the same place of the queue.

    :param make_parser: makes a parser for each generation; it divides the text into content and tool calls,
        of which only content passes `on_text`
    :param tools: functions that the model may call, by name; without any, calls are the client's
    """

    def __init__(
        self,
        hooks: Hooks,
        context: ReplyContext,
        make_parser: Callable[[], ReplyParser] = TextReply,
        tools: Mapping[str, Tool] | None = None,
    ) -> None:
        self.context = context
        self.parser = make_parser()
        self.shown = ShownText()
        self._hooks = hooks
        self._make_parser = make_parser
        self._in_request = InRequest(context.request, is_needed=bool(hooks))
        self._passing = threading.RLock()  # held while text passes the hooks
        self._stages = TextStages(hooks, context, self.shown.add_piece)
        self._pumped_at = time.monotonic()
        self._pumping: threading.Thread | None = None  # while nobody here reads the reply
        self._num_read = 0  # characters of the generation that have entered them
        self._is_flushed = False  # the generation has ended, and all of its text has passed
        self._failure: ChatStreamError | None = None
        self._changing = threading.Lock()  # held while another generation takes over
        self._generation: GenerationRequest | None = None
        self._follow: Follow | None = None
        self._stop_reason: FinishReason | None = None
        self._ended: list[Outcome] = []  # of the generations before the newest
        self._messages: list[Message] = []  # since the question: calls and results
        self._calls: list[dict[str, Any]] = []  # of the newest generation
        self._content = ""  # the same
        self._reasoning = ""  # the same
        self._tools = tools or {}
        self._tool_calls = ToolCalls(
            hooks,
            context,
            self._tools,
            tell=self._tell_step,
            stop_reason=lambda: self._stop_reason or self.generation.stop_reason,
            in_context=self._in_request,
        )

    def start(self, generation: GenerationRequest, follow: Follow | None = None) -> None:
        """Set the first generation.

        :param follow: returns one that continues the reply after these messages with calls and results
        """
        self._generation = generation
        if self._tools:
            self._follow = follow
            generation.follow_up = self._follow_up

    # -- read by any thread --------------------------------------------------------------------------

    @property
    def generation(self) -> GenerationRequest:
        """The newest generation."""
        assert self._generation is not None, "it has not been started"
        return self._generation

    @property
    def is_continued(self) -> bool:
        """Whether the newest generation is not the first."""
        return bool(self._ended)

    @property
    def passes(self) -> bool:
        """Whether its text goes through hooks or tools; if not, readers read the generation itself."""
        return bool(self._hooks.on_text or self._tools)

    @property
    def has_client_calls(self) -> bool:
        """Whether the reply has a tool call so far that is left to the client."""
        return self.parser.has_called and not self._tools

    @property
    def num_read(self) -> int:
        """Characters of the newest generation that have entered the hooks."""
        return self._num_read

    @property
    def steps(self) -> list[Step]:
        """The calls that have ended."""
        return self._tool_calls.steps

    def texts(self) -> tuple[str, str]:
        """Return the answer and the reasoning as they were let through."""
        if not self.passes:
            return self.generation.text, self.generation.reasoning_text
        return self.shown.texts()

    def wait(self, offset: int, timeout: float) -> None:
        """Wait for something to pump, or to read after `offset`."""
        generation, shown = self.generation, self.shown
        generation.read(
            self._num_read, timeout, lambda: shown.num_chars > offset or self.generation is not generation
        )

    # -- by readers and clients ----------------------------------------------------------------------

    def pump(self) -> None:
        """Let new text through; the reply ends if a hook refuses or fails."""
        self._pumped_at = time.monotonic()
        with self._passing:
            self._read()
            if self._failure is not None:
                self.generation.request_stop(FinishReason.CANCELLED)

    def pump_if_nobody_does(self) -> None:
        """Let text through in a thread of its own, for readers on other servers, if none is left here."""
        is_left = time.monotonic() - self._pumped_at >= PUMP_AFTER_SEC
        if is_left and self._pumping is None and self.generation.has_news(self._num_read):
            self._pumping = threading.Thread(target=self._pump_to_end, name="chatstream-pump", daemon=True)
            self._pumping.start()

    def _pump_to_end(self) -> None:
        while self.generation.outcome is None:
            self.wait(self.shown.num_chars, PUMP_AFTER_SEC)
            self.pump()

    def cancel(self, engine: Engine, reason: FinishReason = FinishReason.CANCELLED) -> None:
        with self._changing:
            self._stop_reason = self._stop_reason or reason
            generation = self.generation
        engine.cancel(generation, reason)

    def answer_step(self, step_id: str, *, is_confirmed: bool) -> bool:
        """Confirm or decline a call; return False if it does not wait for that."""
        return self._tool_calls.answer(step_id, is_confirmed=is_confirmed)

    # -- at the end of a generation, in the finisher ---------------------------------------------------

    def finish(self, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        """Let the rest through; return the outcome of the whole reply."""
        is_cut = bool(self._calls) and self._stop_reason is not None  # ended between two generations
        if generation is not self.generation:  # the next one was not accepted
            self._generation, self._stop_reason, is_cut = generation, FinishReason.SHUTDOWN, True
            self._ended.pop()
        elif self.passes:
            self._flush()
        outcome = total_outcome([*self._ended, outcome])
        if self._failure is not None:
            return replace(
                outcome,
                finish_reason=FinishReason.ERROR,
                error=str(self._failure),
                error_class=type(self._failure),
            )
        if is_cut and self._stop_reason is not None:
            return replace(outcome, finish_reason=self._stop_reason)
        return outcome

    def tell(self, outcome: Outcome) -> None:
        """Call `after_reply`; a failure is only logged."""
        if not self._hooks.after_reply:
            return
        self.context.end(*self.texts(), outcome)
        for hook in self._hooks.after_reply:
            with suppress(Exception):  # it was logged
                self._in_request(self._hooks.run, "after_reply", hook, self.context)

    def end(self, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        """Let the rest through and call `after_reply`; return the outcome as `finish` does."""
        outcome = self.finish(generation, outcome)
        self.tell(outcome)
        return outcome

    def _follow_up(self, generation: GenerationRequest, outcome: Outcome) -> GenerationRequest | None:
        """Call the functions that the model has called; return the generation that continues the reply."""
        if outcome.finish_reason is not FinishReason.STOP or self._follow is None:
            return None
        self._flush()
        if not self._calls or self._failure is not None or len(self._ended) + 1 >= MAX_GENERATIONS:
            return None
        calls = [for_template(call) for call in self._calls]
        asked: Message = {"role": "assistant", "content": self._content, "tool_calls": calls}
        if self._reasoning:
            asked["reasoning_content"] = self._reasoning
        self._messages.append(asked)
        self._messages += self._tool_calls.run(self._calls)
        try:
            following = self._in_request(self._follow, self._messages)
        except ChatStreamError as error:  # the prompt is too long
            self._failure = error
            return None
        with self._passing, self._changing:
            self._stop_reason = self._stop_reason or generation.stop_reason
            if self._stop_reason is not None:
                return None
            following.follow_up = self._follow_up
            self._generation = generation.following(following)
            self._ended.append(outcome)
            self.parser = self._make_parser()
            self._num_read, self._is_flushed, self._calls = 0, False, []
            self._content = self._reasoning = ""
        return following

    # -- text ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._failure is not None or self._is_flushed:
            return
        pieces, _ = self.generation.read(self._num_read, 0)
        self._num_read += sum(piece.size for piece in pieces)
        if pieces:
            self._try(self._take, pieces)

    def _flush(self) -> None:
        """Let all text of a generation through that has ended."""
        with self._passing:
            self._read()
            if not self._is_flushed:
                self._try(self._take_end)
            self._is_flushed = True

    def _take(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._pass(
                [{"reasoning_content": piece.text}] if piece.is_reasoning else self.parser.push(piece.text)
            )

    def _take_end(self) -> None:
        self._pass(self.parser.finish())
        self._stages.flush()

    def _pass(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            if "content" in delta:
                self._content += delta["content"]
                self._stages.push(delta["content"], is_reasoning=False)
            elif "reasoning_content" in delta:
                self._reasoning += delta["reasoning_content"]
                self._stages.push(delta["reasoning_content"], is_reasoning=True)
            elif self._tools:
                self._calls += delta.get(CALLS, ())
            else:
                self.shown.add_call(delta)

    def _tell_step(self, step: Step) -> None:
        self.shown.add_step(step)
        self.generation.wake_readers()

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do something with text, in the context of the request; text that fails is lost, with the rest."""
        if self._failure is not None:
            return
        try:
            self._in_request(action, *arguments)
        except ChatStreamError as error:
            self._failure = error
        except Exception as error:  # an HTTPException of the app
            self._failure = HookFailed(str(error))
