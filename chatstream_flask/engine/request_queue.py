"""The bounded queue in front of the generation threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from ..config import NO_LIMITS, VisitorLimits
from ..errors import NotAccepting, TooManyRequests
from .fair_queue import FairQueue
from .request import GenerationRequest, Status
from .visitor import Visitor

LOOK_SEC = 0.1  # between two looks for waiting requests that must end
MAX_HOMES = 4096  # remembered
SWEEP_SEC = 60.0  # between two looks for visitors that can be forgotten


class Reservation:
    """The right to be in work: taken before anything costly is done, given back exactly once."""

    def __init__(self, queue: RequestQueue, visitor: Visitor, priority: int) -> None:
        self._queue = queue
        self.visitor = visitor
        self.priority = priority
        self.request: GenerationRequest | None = None  # set once it is submitted

    def close(self) -> None:
        self._queue.give_back(self)


class RequestQueue:
    """Hold a bounded number of accepted requests, in the order that `FairQueue` gives. Only `take` blocks.

    Shared by all threads; a waiting request leaves it through exactly one of `take`, `discard`,
    `pop_overdue` and `close`, and whoever got it there must finish it. Of a taken one this is whoever gets it
    through `done` or `retire`: also a thread that hung and goes on later finishes nothing twice.
    """

    def __init__(
        self,
        capacity: int,
        num_slots: list[int],
        devices: list[int] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """:param devices: the number of each generation thread's; None: all are on one"""
        self.capacity = capacity  # running and waiting together
        self._num_slots = list(num_slots)  # of each generation thread; 0 for one that is opening or retired
        self._devices = [0] * len(num_slots) if devices is None else list(devices)
        self._clock = clock
        self._changed = threading.Condition()  # guards everything below
        self._places: set[Reservation] = set()
        self._submitted: dict[GenerationRequest, Reservation] = {}
        self._turns = FairQueue[GenerationRequest]()  # those that wait
        self._taken: list[set[GenerationRequest]] = [set() for _ in num_slots]  # and not done, by thread
        self._visitors: dict[object, Visitor] = {}  # by name; those of nobody by their place
        self._homes: dict[str | None, int] = {}  # cache owners and the thread that had them, the latest last
        self._is_closed = False
        self._looked_at = self._swept_at = float("-inf")

    def __repr__(self) -> str:
        return f"<RequestQueue [{self.num_accepted}/{self.capacity} accepted, {self.num_waiting} waiting]>"

    @property
    def num_accepted(self) -> int:
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        return len(self._turns)

    @property
    def num_running(self) -> int:
        return sum(map(len, self._taken))

    @property
    def num_busy(self) -> int:
        """Generation threads that have work."""
        return sum(map(bool, self._taken))

    @property
    def num_startable(self) -> int:
        """How many of those that wait may run as soon as there is a slot."""
        with self._changed:
            return sum(visitor.num_startable for visitor in self._visitors.values())

    @property
    def is_over(self) -> bool:
        """Nothing waits and nothing will."""
        return self._is_closed and not self._turns

    def reserve(
        self, visitor: str | None = None, priority: int = 0, limits: VisitorLimits = NO_LIMITS
    ) -> Reservation:
        """:param visitor: whose it is; None: nobody's, who has no limits and takes turns with everybody"""
        with self._changed:
            self._check_open()
            if len(self._places) >= self.capacity:
                raise TooManyRequests(f"all {self.capacity} places are taken; try again later")
            account = self._account(visitor, limits)
            self._check_tokens(account)
            self._check_waiting(account)
            place = Reservation(self, account, priority)
            account.num_waiting += 1
            self._places.add(place)
            self._visitors[place if visitor is None else visitor] = account
            return place

    def reserve_all(
        self, num: int, visitor: str | None = None, priority: int = 0, limits: VisitorLimits = NO_LIMITS
    ) -> list[Reservation]:
        """All of them or none."""
        with self._changed:
            self._check_open()
            num_free = self.capacity - len(self._places)
            if 0 < num_free < num:
                raise TooManyRequests(f"{num} places are needed and {num_free} are free; try again later")
            places: list[Reservation] = []
            try:
                for _ in range(num):
                    places.append(self.reserve(visitor, priority, limits))
            except TooManyRequests:
                for place in places:
                    self.give_back(place)
                raise
            return places

    def give_back(self, place: Reservation) -> None:
        with self._changed:
            if place not in self._places:
                return
            if place.request is not None and place.request.status is not Status.FINISHED:
                raise RuntimeError(f"{place.request!r} is in work and keeps its place")
            self._places.remove(place)
            self._visitors.pop(place, None)
            if place.request is None:
                place.visitor.num_waiting -= 1
            else:
                del self._submitted[place.request]
            self._changed.notify_all()

    def put(self, request: GenerationRequest, place: Reservation) -> None:
        """:raises TooManyRequests: others of the visitor have used its tokens since it reserved the place"""
        with self._changed:
            self._check_open()
            if place not in self._places or place.request is not None:
                raise RuntimeError(f"{request!r} has no place of its own")
            self._check_tokens(place.visitor)
            place.visitor.use(len(request.prompt_ids) + request.params.max_new_tokens, self._clock())
            place.request = request
            self._submitted[request] = place
            self._turns.add(place.visitor, place.priority, request)
            self._changed.notify_all()

    def take(self, worker: int, *, wait: bool) -> GenerationRequest | None:
        """The next waiting request, if it is this thread's turn; None when not, or when over."""
        if not wait and not self._turns.has_ready:
            return None  # the usual step: no lock
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self.is_over or self.is_retired(worker) or self._is_turn_of(worker)
                )
            if not self._is_turn_of(worker):
                return None
            request = self._turns.pop()
            assert request is not None
            self._taken[worker].add(request)
            self._remember_home(request.cache_owner, worker)
            self._submitted[request].visitor.num_waiting -= 1
            self._changed.notify_all()
            return request

    def done(self, worker: int, request: GenerationRequest) -> bool:
        """Its slot was given back. False: the request was taken from this thread when that was retired."""
        with self._changed:
            if request not in self._taken[worker]:
                return False
            self._taken[worker].remove(request)
            self._not_running(request)
            self._changed.notify_all()
            return True

    # -- threads that come and go ------------------------------------------------------------------

    def enlist(self, predecessor: int) -> int:
        """The number of one more generation thread, on the device of another; it gets nothing before it is
        `ready`.
        """
        with self._changed:
            self._num_slots.append(0)
            self._devices.append(self._devices[predecessor])
            self._taken.append(set())
            return len(self._taken) - 1

    def ready(self, worker: int, num_slots: int) -> None:
        with self._changed:
            self._num_slots[worker] = num_slots
            self._changed.notify_all()

    def retire(self, worker: int) -> list[GenerationRequest]:
        """Gives this thread nothing any more, and hands over what it had."""
        with self._changed:
            self._num_slots[worker] = 0
            taken, self._taken[worker] = self._taken[worker], set()
            for request in taken:
                self._not_running(request)
            self._changed.notify_all()
            return list(taken)

    def is_retired(self, worker: int) -> bool:
        return not self._num_slots[worker]

    def discard(self, request: GenerationRequest) -> bool:
        """Takes a waiting request out; False when it was not waiting any more."""
        with self._changed:
            place = self._submitted.get(request)
            if place is None or not self._turns.remove(place.visitor, place.priority, request):
                return False
            self._not_run(request, place.visitor)
            return True

    def pop_overdue(self) -> list[GenerationRequest]:
        """The waiting requests that must end: asked to, or out of time. Looks ten times a second at most."""
        if not self._turns or self._clock() - self._looked_at < LOOK_SEC:
            return []
        with self._changed:
            self._looked_at = self._clock()
            overdue = [request for request in self._turns if request.stop_reason is not None]
            for request in overdue:
                place = self._submitted[request]
                self._turns.remove(place.visitor, place.priority, request)
                self._not_run(request, place.visitor)
            return overdue

    def position(self, request: GenerationRequest) -> int:
        """1 for the next one to run, 0 for one that is not waiting."""
        with self._changed:
            return self._turns.position(request)

    def requests(self) -> list[GenerationRequest]:
        """All that were submitted and are not done."""
        with self._changed:
            return list(self._submitted)

    def refuse_new(self) -> None:
        """From now on nothing is accepted; what was accepted goes on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def close(self) -> list[GenerationRequest]:
        """Refuses new ones, wakes the threads, and hands over those that wait."""
        with self._changed:
            self._is_closed = True
            waiting = self._turns.order()
            for request in waiting:
                self._not_run(request, self._submitted[request].visitor)
            self._turns = FairQueue()
            self._changed.notify_all()
            return waiting

    def wait_until_empty(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._places, timeout)

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotAccepting("the server is stopping and takes no new requests")

    def _account(self, name: str | None, limits: VisitorLimits) -> Visitor:
        """What is known of a visitor; the newest limits hold."""
        if name is None:
            return Visitor()
        now = self._clock()
        if now - self._swept_at >= SWEEP_SEC:
            self._swept_at = now
            self._visitors = {key: it for key, it in self._visitors.items() if not it.is_idle(now)}
        visitor = self._visitors.get(name) or Visitor()
        if visitor.limits != limits:
            visitor.limits = limits
            self._turns.sort_in(visitor)
        return visitor

    def _check_tokens(self, visitor: Visitor) -> None:
        if wait_sec := visitor.wait_sec(self._clock()):
            limit = visitor.limits.max_tokens_per_minute
            message = f"you have used your {limit} tokens a minute; try again in {wait_sec} s"
            raise TooManyRequests(message, wait_sec, "visitor_tokens")

    def _check_waiting(self, visitor: Visitor) -> None:
        """One more of it must be able to start at once, or to wait."""
        limits = visitor.limits
        if limits.max_waiting is None:
            return
        others = sum(other.num_startable for other in self._visitors.values() if other is not visitor)
        num_free = sum(self._num_slots) - self.num_running - others
        if limits.max_running is not None:
            num_free = min(num_free, limits.max_running - visitor.num_running)
        if visitor.num_waiting + 1 - max(num_free, 0) <= limits.max_waiting:
            return
        if not limits.max_waiting and not visitor.may_run:
            message = f"you have {visitor.num_running} replies in the making, which is all you may have"
            raise TooManyRequests(f"{message}; try again later", reason="visitor_running")
        message = f"you have {visitor.num_waiting} requests waiting, {limits.max_waiting} are allowed"
        raise TooManyRequests(f"{message}; try again later", reason="visitor_waiting")

    def _not_running(self, request: GenerationRequest) -> None:
        visitor = self._submitted[request].visitor
        visitor.num_running -= 1
        visitor.use(request.num_generated - request.params.max_new_tokens, self._clock())
        self._turns.sort_in(visitor)

    def _not_run(self, request: GenerationRequest, visitor: Visitor) -> None:
        visitor.num_waiting -= 1
        visitor.use(-len(request.prompt_ids) - request.params.max_new_tokens, self._clock())

    def _is_turn_of(self, worker: int) -> bool:
        """A conversation goes back to the thread that had it last, if that has a slot free: it may still hold
        its keys and values. Else the least loaded device goes first, there the least loaded thread.
        """
        on_device = Counter[int]()
        for device, taken in zip(self._devices, self._taken, strict=True):
            on_device[device] += len(taken)
        loads = {
            i: (on_device[self._devices[i]], len(taken))
            for i, taken in enumerate(self._taken)
            if len(taken) < self._num_slots[i]
        }
        request = self._turns.peek()
        if request is None or worker not in loads:
            return False
        home = self._homes.get(request.cache_owner)
        return worker == home if home in loads else loads[worker] == min(loads.values())

    def _remember_home(self, owner: str | None, worker: int) -> None:
        if owner is not None:
            self._homes.pop(owner, None)
            self._homes[owner] = worker
            if len(self._homes) > MAX_HOMES:
                del self._homes[next(iter(self._homes))]
