"""Whose request is next: higher priorities first, then the visitors in turn, then each one's oldest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from .visitor import Visitor

MAX_PASSED_OVER = 8  # times, then a lower priority is served once: nobody waits for ever

T = TypeVar("T")  # what waits


class VisitorQueue(Generic[T]):
    """What waits of one visitor with one priority, the oldest first."""

    def __init__(self, visitor: Visitor, number: int) -> None:
        self.visitor = visitor
        self.number = number  # the lowest is next
        self.waiting: deque[T] = deque()


class PriorityLane(Generic[T]):
    """The visitors of one priority. One that is at its running limit is held, and keeps its turn."""

    def __init__(self) -> None:
        self.ready: dict[Visitor, VisitorQueue[T]] = {}  # in the order of their numbers
        self.held: dict[Visitor, VisitorQueue[T]] = {}
        self.num_passed_over = 0  # since it was last served
        self._last_number = 0

    def turn_of(self, visitor: Visitor) -> VisitorQueue[T] | None:
        return self.ready.get(visitor) or self.held.get(visitor)

    def add(self, visitor: Visitor, item: T) -> None:
        if (turn := self.turn_of(visitor)) is None:
            turn = VisitorQueue(visitor, 0)
            self._put_last(turn)
        turn.waiting.append(item)

    def remove(self, visitor: Visitor, item: T) -> bool:
        turn = self.turn_of(visitor)
        if turn is None or item not in turn.waiting:
            return False
        turn.waiting.remove(item)
        if not turn.waiting:
            self.ready.pop(visitor, None)
            self.held.pop(visitor, None)
        return True

    def peek(self) -> T:
        return next(iter(self.ready.values())).waiting[0]

    def pop(self) -> tuple[Visitor, T]:
        """The visitor goes to the end of the line; the caller looks whether it may still run."""
        turn = self.ready.pop(next(iter(self.ready)))
        item = turn.waiting.popleft()
        if turn.waiting:
            self._put_last(turn)
        return turn.visitor, item

    def sort_in(self, visitor: Visitor) -> None:
        """After it became able to run, or unable."""
        if not visitor.may_run and visitor in self.ready:
            self.held[visitor] = self.ready.pop(visitor)
        elif visitor.may_run and visitor in self.held:
            self.ready[visitor] = self.held.pop(visitor)
            self.ready = dict(sorted(self.ready.items(), key=lambda entry: entry[1].number))

    def end_all_running(self) -> None:
        """In a copy of which all that may run has been popped."""
        for visitor in self.held:
            visitor.num_running = 0
        self.ready = dict(sorted(self.held.items(), key=lambda entry: entry[1].number))
        self.held = {}

    def _put_last(self, turn: VisitorQueue[T]) -> None:
        self._last_number = turn.number = self._last_number + 1
        (self.ready if turn.visitor.may_run else self.held)[turn.visitor] = turn


class FairQueue(Generic[T]):
    """All that wait. Not locked; `has_ready` and the length may be read by any thread."""

    def __init__(self) -> None:
        self.has_ready = False  # one that may run
        self._num_waiting = 0
        self._lanes: dict[int, PriorityLane[T]] = {}  # the highest priority first; none is empty
        self._positions: dict[T, int] | None = None  # until something changes

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[T]:
        for lane in self._lanes.values():
            for turn in (*lane.ready.values(), *lane.held.values()):
                yield from turn.waiting

    def add(self, visitor: Visitor, priority: int, item: T) -> None:
        if priority not in self._lanes:
            self._lanes[priority] = PriorityLane()
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        self._lanes[priority].add(visitor, item)
        self._num_waiting += 1
        self._update()

    def remove(self, visitor: Visitor, priority: int, item: T) -> bool:
        """False: it does not wait."""
        if priority not in self._lanes or not self._lanes[priority].remove(visitor, item):
            return False
        self._num_waiting -= 1
        self._update()
        return True

    def peek(self) -> T | None:
        """The next one that may run."""
        ready = self._ready_lanes()
        return _next(ready).peek() if ready else None

    def pop(self) -> T | None:
        """The next one that may run; its visitor has one more running from now on."""
        ready = self._ready_lanes()
        if not ready:
            return None
        lane = _next(ready)
        lane.num_passed_over = 0
        for lower in ready[ready.index(lane) + 1 :]:
            lower.num_passed_over += 1
        visitor, item = lane.pop()
        visitor.num_running += 1
        self._num_waiting -= 1
        self.sort_in(visitor)
        return item

    def sort_in(self, visitor: Visitor) -> None:
        """After it became able to run, or unable."""
        for lane in self._lanes.values():
            lane.sort_in(visitor)
        self._update()

    def position(self, item: T) -> int:
        """From 1; 0 for what does not wait."""
        if self._positions is None:
            self._positions = {waiting: i for i, waiting in enumerate(self.order(), 1)}
        return self._positions.get(item, 0)

    def order(self) -> list[T]:
        """As they would be taken if slots became free now, one after another, and nobody else came.

        Those above their visitors' running limits come last: one of the visitor's own must end first.
        """
        ahead, order = self._copy(), list[T]()
        while ahead:
            while (item := ahead.pop()) is not None:
                order.append(item)
            for lane in ahead._lanes.values():
                lane.end_all_running()
        return order

    def _ready_lanes(self) -> list[PriorityLane[T]]:
        return [lane for lane in self._lanes.values() if lane.ready]

    def _copy(self) -> FairQueue[T]:
        """With visitors of its own."""
        copy, visitors = FairQueue[T](), dict[Visitor, Visitor]()
        copy._num_waiting = self._num_waiting
        for priority, lane in self._lanes.items():
            copy._lanes[priority] = new = PriorityLane[T]()
            new.num_passed_over, new._last_number = lane.num_passed_over, lane._last_number
            for old, new_turns in ((lane.ready, new.ready), (lane.held, new.held)):
                for visitor, turn in old.items():
                    twin = visitors.setdefault(visitor, Visitor(visitor.limits, visitor.num_running))
                    new_turns[twin] = VisitorQueue(twin, turn.number)
                    new_turns[twin].waiting.extend(turn.waiting)
        return copy

    def _update(self) -> None:
        self._positions = None
        if not all(lane.ready or lane.held for lane in self._lanes.values()):
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.ready or lane.held}
        self.has_ready = any(lane.ready for lane in self._lanes.values())


def _next(ready: list[PriorityLane[T]]) -> PriorityLane[T]:
    overlooked = [lane for lane in ready if lane.num_passed_over >= MAX_PASSED_OVER]
    return overlooked[-1] if overlooked else ready[0]
