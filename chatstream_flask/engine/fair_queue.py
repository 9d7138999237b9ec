"""Order of waiting requests: by priority, then visitors in turn, then first in first out for each visitor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from .visitor import Visitor

MAX_SKIPS = 8  # after so many skips a lower priority is served once, so that nobody waits for ever

T = TypeVar("T")  # a waiting item


class VisitorQueue(Generic[T]):
    """Waiting items of one visitor at one priority, the oldest first."""

    def __init__(self, visitor: Visitor, number: int) -> None:
        self.visitor = visitor
        self.number = number  # the lowest is served next
        self.items: deque[T] = deque()


class PriorityLane(Generic[T]):
    """Visitor queues of one priority. A visitor at its running limit is blocked and keeps its number."""

    def __init__(self) -> None:
        self.ready: dict[Visitor, VisitorQueue[T]] = {}  # in the order of their numbers
        self.blocked: dict[Visitor, VisitorQueue[T]] = {}
        self.num_skips = 0  # since the lane was last served
        self._last_number = 0

    def queue_of(self, visitor: Visitor) -> VisitorQueue[T] | None:
        return self.ready.get(visitor) or self.blocked.get(visitor)

    def add(self, visitor: Visitor, item: T) -> None:
        if (queue := self.queue_of(visitor)) is None:
            queue = VisitorQueue(visitor, 0)
            self._put_last(queue)
        queue.items.append(item)

    def remove(self, visitor: Visitor, item: T) -> bool:
        queue = self.queue_of(visitor)
        if queue is None or item not in queue.items:
            return False
        queue.items.remove(item)
        if not queue.items:
            self.ready.pop(visitor, None)
            self.blocked.pop(visitor, None)
        return True

    def peek(self) -> T:
        return next(iter(self.ready.values())).items[0]

    def heads(self) -> list[T]:
        return [queue.items[0] for queue in self.ready.values()]

    def pop(self, visitor: Visitor) -> T:
        """Remove the oldest item of a visitor and put the visitor last; the caller refreshes the visitor."""
        queue = self.ready.pop(visitor, None) or self.blocked.pop(visitor)
        item = queue.items.popleft()
        if queue.items:
            self._put_last(queue)
        return item

    def refresh(self, visitor: Visitor) -> None:
        """Block or unblock a visitor whose number of running requests or limit has changed."""
        if not visitor.can_run and visitor in self.ready:
            self.blocked[visitor] = self.ready.pop(visitor)
        elif visitor.can_run and visitor in self.blocked:
            self.ready[visitor] = self.blocked.pop(visitor)
            self.ready = dict(sorted(self.ready.items(), key=lambda entry: entry[1].number))

    def end_all_running(self) -> None:
        """Call on a copy whose ready items are all popped; frees every visitor's running quota."""
        for visitor in self.blocked:
            visitor.num_running = 0
        self.ready = dict(sorted(self.blocked.items(), key=lambda entry: entry[1].number))
        self.blocked = {}

    def copy(self, visitors: dict[Visitor, Visitor]) -> PriorityLane[T]:
        """Return a copy with the visitors that `visitors` maps to; new visitors are added to it."""
        copy = PriorityLane[T]()
        copy.num_skips, copy._last_number = self.num_skips, self._last_number
        for old_queues, queues in ((self.ready, copy.ready), (self.blocked, copy.blocked)):
            for visitor, old_queue in old_queues.items():
                twin = visitors.setdefault(visitor, Visitor(visitor.limits, visitor.num_running))
                queues[twin] = VisitorQueue(twin, old_queue.number)
                queues[twin].items.extend(old_queue.items)
        return copy

    def _put_last(self, queue: VisitorQueue[T]) -> None:
        self._last_number = queue.number = self._last_number + 1
        (self.ready if queue.visitor.can_run else self.blocked)[queue.visitor] = queue


class FairQueue(Generic[T]):
    """All waiting items. Not locked, but any thread may read `has_ready` and the length."""

    def __init__(self) -> None:
        self.has_ready = False  # some item may run now
        self._num_items = 0
        self._lanes: dict[int, PriorityLane[T]] = {}  # the highest priority first; no lane is empty
        self._positions: dict[T, int] | None = None  # cached until the next change

    def __len__(self) -> int:
        return self._num_items

    def __iter__(self) -> Iterator[T]:
        for lane in self._lanes.values():
            for queue in (*lane.ready.values(), *lane.blocked.values()):
                yield from queue.items

    def add(self, visitor: Visitor, priority: int, item: T) -> None:
        if priority not in self._lanes:
            self._lanes[priority] = PriorityLane()
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        self._lanes[priority].add(visitor, item)
        self._num_items += 1
        self._on_change()

    def remove(self, visitor: Visitor, priority: int, item: T) -> bool:
        """Remove an item; return False if it was not waiting."""
        if priority not in self._lanes or not self._lanes[priority].remove(visitor, item):
            return False
        self._num_items -= 1
        self._on_change()
        return True

    def peek(self) -> T | None:
        """Return the next item that may run, or None."""
        ready = self._ready_lanes()
        return _next_lane(ready).peek() if ready else None

    def pop(self) -> T | None:
        """Remove and return the next item that may run, and count it as running for its visitor."""
        ready = self._ready_lanes()
        if not ready:
            return None
        lane = _next_lane(ready)
        return self._pop(lane, next(iter(lane.ready)))

    def pop_if_oldest(self, visitor: Visitor, priority: int, item: T) -> bool:
        """Remove an item as `pop` does, if it is the oldest of its visitor; return whether it was."""
        lane = self._lanes.get(priority)
        queue = None if lane is None else lane.queue_of(visitor)
        if lane is None or queue is None or queue.items[0] != item:
            return False
        self._pop(lane, visitor)
        return True

    def heads(self) -> list[list[T]]:
        """Return the oldest items of visitors that may run: a list for each priority, the next one first."""
        ready = self._ready_lanes()
        if not ready:
            return []
        first = _next_lane(ready)
        return [lane.heads() for lane in (first, *(lane for lane in ready if lane is not first))]

    def refresh(self, visitor: Visitor) -> None:
        """Block or unblock a visitor whose number of running requests or limit has changed."""
        for lane in self._lanes.values():
            lane.refresh(visitor)
        self._on_change()

    def position(self, item: T) -> int:
        """Return the position of an item, starting at 1; 0 if it is not waiting."""
        if self._positions is None:
            self._positions = {waiting: i for i, waiting in enumerate(self.in_order(), 1)}
        return self._positions.get(item, 0)

    def in_order(self) -> list[T]:
        """Return all items in the order they would be served if slots became free and no item was added.

        Items beyond their visitor's running limit come last, as one of the visitor's own must end first.
        """
        rest, order = self._copy(), list[T]()
        while rest:
            while (item := rest.pop()) is not None:
                order.append(item)
            for lane in rest._lanes.values():
                lane.end_all_running()
        return order

    def _pop(self, lane: PriorityLane[T], visitor: Visitor) -> T:
        ready = self._ready_lanes()
        lane.num_skips = 0
        if lane in ready:
            for lower in ready[ready.index(lane) + 1 :]:
                lower.num_skips += 1
        item = lane.pop(visitor)
        visitor.num_running += 1
        self._num_items -= 1
        self.refresh(visitor)
        return item

    def _ready_lanes(self) -> list[PriorityLane[T]]:
        return [lane for lane in self._lanes.values() if lane.ready]

    def _copy(self) -> FairQueue[T]:
        """Return a copy that has its own visitors."""
        copy, visitors = FairQueue[T](), dict[Visitor, Visitor]()
        copy._num_items = self._num_items
        copy._lanes = {priority: lane.copy(visitors) for priority, lane in self._lanes.items()}
        return copy

    def _on_change(self) -> None:
        self._positions = None
        if not all(lane.ready or lane.blocked for lane in self._lanes.values()):
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.ready or lane.blocked}
        self.has_ready = any(lane.ready for lane in self._lanes.values())


def _next_lane(ready: list[PriorityLane[T]]) -> PriorityLane[T]:
    """Return the lowest lane that was skipped too often, else the highest."""
    overdue = [lane for lane in ready if lane.num_skips >= MAX_SKIPS]
    return overdue[-1] if overdue else ready[0]
