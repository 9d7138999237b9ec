"""The text of one reply on its way through `on_text`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..engine.reasoning import Piece
from .registry import Hooks, OnText
from .reply_context import ReplyContext
from .text_units import TextUnits, UnitName


class TextStages:
    """Lets reasoning and answer through the hooks, one unit after the other.

    :param emit: gets the pieces that were let through
    """

    def __init__(self, hooks: Hooks, context: ReplyContext, emit: Callable[[Piece], None]) -> None:
        self._emit = emit
        self._is_reasoning = False  # whether the newest text was
        self._stages = {
            kind: [_Stage(hooks, context, *registered) for registered in hooks.on_text]
            for kind in (False, True)
        }

    def push(self, text: str, *, is_reasoning: bool) -> None:
        if is_reasoning is not self._is_reasoning:
            self.flush()  # before what follows it
            self._is_reasoning = is_reasoning
        self._push(text, self._stages[is_reasoning])

    def flush(self) -> None:
        """Let through what is held back as an incomplete unit."""
        stages = self._stages[self._is_reasoning]
        for i, stage in enumerate(stages):
            for unit in stage.finish():
                self._push(unit, stages[i + 1 :])

    def _push(self, text: str, stages: Sequence[_Stage]) -> None:
        """Let text through the stages, each unit before the next one is begun."""
        if stages:
            for unit in stages[0].push(text):
                self._push(unit, stages[1:])
        elif text:
            self._emit(Piece(text, self._is_reasoning))


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
