"""One reply on its way through the hooks of an app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flask import copy_current_request_context, has_request_context, request

from ..engine.engine import Engine
from ..engine.outcome import FinishReason, Outcome
from ..engine.reasoning import Piece
from ..engine.reply_source import LocalReply
from ..engine.reply_text import ReplyText
from ..engine.request import GenerationRequest
from ..errors import ChatStreamError, HookFailed
from ..reply_format.deltas import Delta
from ..reply_format.reply_parser import ReplyParser, TextReply
from .registry import Hooks, OnText
from .reply_context import ReplyContext
from .text_units import TextUnits, UnitName

Result = TypeVar("Result")
FIELDS = {False: "content", True: "reasoning_content"}  # of deltas, by whether they are reasoning


class HookedReply:
    """Runs the hooks for one reply; made in the context of its request.

    `on_text` is called by whoever reads the reply: the thread of the request, or of one that has come back.
    What nobody has read is let through at its end, by the finisher. So a hook is never called by a thread
    that generates, and by one thread at a time.

    :param parser: divides the answer into content and tool calls; only content passes `on_text`
    """

    def __init__(self, hooks: Hooks, context: ReplyContext, parser: ReplyParser | None = None) -> None:
        self.context = context
        self._hooks = hooks
        self._parser = parser or TextReply()
        self._in_context: Callable[..., Any] = copy_current_request_context(_call) if hooks else _call
        self._stages = {
            kind: [_Stage(hooks, context, *registered) for registered in hooks.on_text] for kind in FIELDS
        }
        self._passing = threading.RLock()  # held while text passes the hooks
        self._num_read = 0  # characters of the generation that have entered them
        self._kind = False  # whether the newest of them was reasoning
        self._failure: ChatStreamError | None = None
        self._guard = threading.Lock()  # of the two below
        self._deltas: list[Delta] = []  # let through
        self._text = ReplyText()  # the same without tool calls

    @property
    def is_filtered(self) -> bool:
        """Whether text passes hooks; otherwise readers may read the generation itself."""
        return bool(self._hooks.on_text)

    @property
    def num_read(self) -> int:
        """Characters of the generation that have entered the hooks."""
        return self._num_read

    @property
    def num_chars(self) -> int:
        """Characters that were let through."""
        return self._text.num_chars

    def source(self, engine: Engine, generation: GenerationRequest) -> LocalReply:
        """Return where readers find the reply."""
        if self.is_filtered:
            return HookedSource(engine, generation, self)
        return LocalReply(engine, generation)

    def begin(self) -> None:
        """Call `before_reply`, in the view.

        :raises ChatStreamError: a hook refused or failed
        """
        for hook in self._hooks.before_reply:
            self._hooks.run("before_reply", hook, self.context)

    # -- text ----------------------------------------------------------------------------------------

    def pieces_after(self, offset: int) -> list[Piece]:
        """Return what was let through after the first `offset` characters."""
        with self._guard:
            return self._text.after(offset)

    def deltas_after(self, num: int) -> list[Delta]:
        """Return all deltas that were let through but the first `num`."""
        with self._guard:
            return self._deltas[num:]

    def pump(self, generation: GenerationRequest) -> None:
        """Let new text through; the reply ends if a hook refuses or fails."""
        with self._passing:
            self._read(generation)
            if self._failure is not None:
                generation.request_stop(FinishReason.CANCELLED)

    def finish(self, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        """Let the rest through; return the outcome, which a hook may have changed into an error."""
        if self.is_filtered:
            with self._passing:
                self._read(generation)
                self._try(self._flush)
        if self._failure is None:
            return outcome
        return replace(
            outcome,
            finish_reason=FinishReason.ERROR,
            error=str(self._failure),
            error_class=type(self._failure),
        )

    def end(self, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        """Let the rest through and call `after_reply`; return the outcome as `finish` does."""
        outcome = self.finish(generation, outcome)
        self.tell(generation, outcome)
        return outcome

    def texts(self, generation: GenerationRequest) -> tuple[str, str]:
        """Return the answer and the reasoning as they were let through."""
        if not self.is_filtered:
            return generation.text, generation.reasoning_text
        with self._guard:
            return self._text.answer, self._text.reasoning

    def tell(self, generation: GenerationRequest, outcome: Outcome) -> None:
        """Call `after_reply`; a failure is only logged."""
        if not self._hooks.after_reply:
            return
        self.context.end(*self.texts(generation), outcome)
        for hook in self._hooks.after_reply:
            with suppress(HookFailed):
                self._run(self._hooks.run, "after_reply", hook, self.context)

    def _read(self, generation: GenerationRequest) -> None:
        if self._failure is not None:
            return
        pieces, _ = generation.read(self._num_read, 0)
        self._num_read += sum(len(piece.text) for piece in pieces)
        if pieces:
            self._try(self._take, pieces)

    def _take(self, pieces: list[Piece]) -> None:
        for text, is_reasoning in pieces:
            deltas = [{FIELDS[True]: text}] if is_reasoning else self._parser.push(text)
            self._pass(deltas)

    def _pass(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            for kind, name in FIELDS.items():
                if name in delta:
                    self._let_through(kind, delta[name])
                    break
            else:
                self._append(delta)

    def _let_through(self, kind: bool, text: str) -> None:
        if kind is not self._kind:
            self._flush_stages(self._kind)  # before what follows it
            self._kind = kind
        self._push(kind, text, self._stages[kind])

    def _push(self, kind: bool, text: str, stages: Sequence[_Stage]) -> None:
        """Let text through the stages, each unit before the next one is begun."""
        if stages:
            for unit in stages[0].push(text):
                self._push(kind, unit, stages[1:])
        elif text:
            self._append({FIELDS[kind]: text}, Piece(text, kind))

    def _flush(self) -> None:
        self._pass(self._parser.finish())
        self._flush_stages(self._kind)

    def _flush_stages(self, kind: bool) -> None:
        stages = self._stages[kind]
        for i, stage in enumerate(stages):
            for unit in stage.finish():
                self._push(kind, unit, stages[i + 1 :])

    def _append(self, delta: Delta, piece: Piece | None = None) -> None:
        with self._guard:
            self._deltas.append(delta)
            if piece is not None:
                self._text.append(piece)

    # -- contexts and failures -----------------------------------------------------------------------

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do something with text, in the context of the request; text that fails is lost, with the rest."""
        if self._failure is not None:
            return
        try:
            self._run(action, *arguments)
        except ChatStreamError as error:
            self._failure = error
        except Exception as error:  # an HTTPException of the app
            self._failure = HookFailed(str(error))

    def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if has_request_context() and request == self.context.request:
            return function(*arguments)
        result: Result = self._in_context(function, *arguments)
        return result


@dataclass(frozen=True)
class HookedSource(LocalReply):
    """Source of a reply whose text passes hooks."""

    hooked: HookedReply = field(compare=False)

    @property
    def num_chars(self) -> int:
        return self.hooked.num_chars

    def read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        """Read as `GenerationRequest.read` does.

        Without a timeout nothing passes the hooks: so reads the thread that copies replies for other servers.
        """
        if timeout and self.hooked.num_chars <= offset:
            self.generation.read(self.hooked.num_read, timeout)
            self.hooked.pump(self.generation)
        outcome = self.generation.outcome  # first: once it is there, all text has passed
        return self.hooked.pieces_after(offset), outcome


class _Stage:
    """One hook for the text of one reply, either its reasoning or its answer."""

    def __init__(self, hooks: Hooks, context: ReplyContext, hook: OnText, unit: UnitName) -> None:
        self._hooks = hooks
        self._context = context
        self._hook = hook
        self._units = TextUnits(unit)

    def push(self, text: str) -> Iterator[str]:
        return map(self._changed, self._units.push(text))

    def finish(self) -> Iterator[str]:
        return map(self._changed, self._units.finish())

    def _changed(self, unit: str) -> str:
        return self._hooks.run("on_text", self._hook, self._context, unit)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
