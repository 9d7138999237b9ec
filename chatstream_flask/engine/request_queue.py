"""The bounded queue in front of the generation threads."""

from __future__ import annotations

import threading
from collections import deque

from ..errors import NotAccepting, TooManyRequests
from .request import GenerationRequest


class Place:
    """The right to be in work: taken before anything costly is done, given back exactly once."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self.request: GenerationRequest | None = None  # set once it is submitted

    def close(self) -> None:
        self._queue.give_back(self)


class RequestQueue:
    """First in, first out. Everything accepted and not yet done holds a place; only `take` blocks.

    Shared by all threads; a waiting request leaves it through exactly one of `take`, `discard`,
    `pop_overdue` and `close`, and whoever got it there must finish it. Of a taken one this is whoever gets it
    through `done` or `retire`: also a thread that hung and goes on later finishes nothing twice.
    """

    def __init__(self, capacity: int, num_slots: list[int]) -> None:
        self.capacity = capacity  # running and waiting together
        self._num_slots = list(num_slots)  # of each generation thread; 0 for one that is opening or retired
        self._changed = threading.Condition()  # guards everything below
        self._places: set[Place] = set()
        self._waiting: deque[GenerationRequest] = deque()
        self._taken: list[set[GenerationRequest]] = [set() for _ in num_slots]  # and not done, by thread
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<RequestQueue [{self.num_accepted}/{self.capacity} accepted, {self.num_waiting} waiting]>"

    @property
    def num_accepted(self) -> int:
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return sum(map(len, self._taken))

    @property
    def is_over(self) -> bool:
        """Nothing waits and nothing will."""
        return self._is_closed and not self._waiting

    def reserve(self) -> Place:
        with self._changed:
            self._check_open()
            if len(self._places) >= self.capacity:
                raise TooManyRequests(f"all {self.capacity} places are taken; try again later")
            place = Place(self)
            self._places.add(place)
            return place

    def give_back(self, place: Place) -> None:
        with self._changed:
            self._places.discard(place)
            self._changed.notify_all()

    def put(self, request: GenerationRequest, place: Place) -> None:
        with self._changed:
            self._check_open()
            if place not in self._places or place.request is not None:
                raise RuntimeError(f"{request!r} has no place of its own")
            place.request = request
            self._waiting.append(request)
            self._changed.notify_all()

    def take(self, worker: int, *, wait: bool) -> GenerationRequest | None:
        """The oldest waiting request, if it is this thread's turn; None when not, or when over."""
        if not wait and not self._waiting:
            return None  # the usual step: no lock
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self.is_over or self.is_retired(worker) or self._is_turn_of(worker)
                )
            if not self._is_turn_of(worker):
                return None
            request = self._waiting.popleft()
            self._taken[worker].add(request)
            self._changed.notify_all()
            return request

    def done(self, worker: int, request: GenerationRequest) -> bool:
        """Its slot was given back. False: the request was taken from this thread when that was retired."""
        with self._changed:
            if request not in self._taken[worker]:
                return False
            self._taken[worker].remove(request)
            self._changed.notify_all()
            return True

    # -- threads that come and go ------------------------------------------------------------------

    def enlist(self) -> int:
        """The number of one more generation thread, which gets nothing before it is `ready`."""
        with self._changed:
            self._num_slots.append(0)
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
            self._changed.notify_all()
            return list(taken)

    def is_retired(self, worker: int) -> bool:
        return not self._num_slots[worker]

    def discard(self, request: GenerationRequest) -> bool:
        """Takes a waiting request out; False when it was not waiting any more."""
        with self._changed:
            try:
                self._waiting.remove(request)
            except ValueError:
                return False
            return True

    def pop_overdue(self) -> GenerationRequest | None:
        """The oldest waiting request, if its time is over."""
        if not self._waiting:
            return None
        with self._changed:
            if self._waiting and self._waiting[0].end_wish is not None:
                return self._waiting.popleft()
            return None

    def position(self, request: GenerationRequest) -> int:
        """1 for the next one to run, 0 for one that is not waiting."""
        with self._changed:
            try:
                return self._waiting.index(request) + 1
            except ValueError:
                return 0

    def requests(self) -> list[GenerationRequest]:
        """All that were submitted and are not done."""
        with self._changed:
            return [place.request for place in self._places if place.request is not None]

    def refuse_new(self) -> None:
        """From now on nothing is accepted; what was accepted goes on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def close(self) -> list[GenerationRequest]:
        """Refuses new ones, wakes the threads, and hands over those that wait."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return waiting

    def wait_until_empty(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._places, timeout)

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotAccepting("the server is stopping and takes no new requests")

    def _is_turn_of(self, worker: int) -> bool:
        """The least loaded thread goes first, so that all stay within one of each other."""
        loads = {i: len(taken) for i, taken in enumerate(self._taken) if len(taken) < self._num_slots[i]}
        return bool(self._waiting) and worker in loads and loads[worker] == min(loads.values())
