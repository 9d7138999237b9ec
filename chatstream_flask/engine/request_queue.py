"""Bounded queue of accepted requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..config import NO_LIMITS, VisitorLimits
from ..errors import NotAccepting, TooManyRequests
from .dispatcher import Dispatcher
from .fair_queue import FairQueue
from .places import Places, Reservation
from .request import GenerationRequest

OVERDUE_CHECK_SEC = 0.1  # minimum interval between two checks for waiting requests that must end


class RequestQueue:
    """Holds a bounded number of requests and hands them out in the order of `FairQueue`.

    All threads share it; its one lock also guards its places, its visitors and its dispatcher. A waiting
    request leaves the queue through exactly one of `take`, `discard`, `pop_overdue` and `close`, and a taken
    one through exactly one of `done` and `retire`. Whoever gets it there must finish it and then `release`
    it. So a thread that hung and runs again later cannot finish a request for a second time.
    """

    def __init__(
        self,
        capacity: int,
        num_slots: list[int],
        devices: list[int] | None = None,
        *,
        api_capacity: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty queue.

        :param capacity: number of places, for waiting and running requests together
        :param api_capacity: number of places for requests of /v1; None: they share the others
        :param num_slots: number of slots of each worker thread
        :param devices: device number of each worker thread; None: all are on the same device
        """
        self.capacity = capacity
        self._clock = clock
        self._changed = threading.Condition()  # guards everything below
        self._places = Places(capacity, clock, api_capacity)
        self._waiting = FairQueue[GenerationRequest]()
        self._dispatcher = Dispatcher(num_slots, devices or [0] * len(num_slots))
        self._is_closed = False
        self._is_ended = False  # also requests that were accepted end
        self._checked_overdue_at = float("-inf")

    def __repr__(self) -> str:
        return f"<RequestQueue [{self.num_accepted}/{self.capacity} accepted, {self.num_waiting} waiting]>"

    @property
    def num_accepted(self) -> int:
        """Places that are taken."""
        return self._places.num_taken

    def num_free(self) -> int:
        """Return how many places requests of the chat may take."""
        with self._changed:
            return self._places.num_free(is_api=False)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return self._dispatcher.num_running

    @property
    def num_busy(self) -> int:
        """Worker threads that have requests."""
        return self._dispatcher.num_busy

    @property
    def num_startable(self) -> int:
        """How many waiting requests may run as soon as there are slots."""
        with self._changed:
            return self._places.num_startable

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing waits and nothing new is accepted, nor may follow on what runs."""
        return self._is_closed and not self.num_waiting and (self._is_ended or not self._places.may_grow)

    # -- places --------------------------------------------------------------------------------------

    def reserve(
        self,
        visitor: str | None = None,
        priority: int = 0,
        limits: VisitorLimits = NO_LIMITS,
        *,
        is_api: bool = False,
    ) -> Reservation:
        """Reserve one place.

        :param visitor: name of the visitor; None: anonymous, a visitor of its own without limits
        :param priority: higher priorities are served first, but not for ever
        :param limits: limits of this visitor from now on
        :param is_api: whether it is for a request of /v1
        :raises TooManyRequests: all places are taken, or the visitor has reached a limit
        :raises NotAccepting: the queue is closed
        """
        with self._changed:
            self._check_open()
            account = self._places.visitor(visitor)
            if visitor is not None and account.limits != limits:
                account.limits = limits
                self._waiting.refresh(account)
            num_free_slots = self._dispatcher.num_free_slots
            return self._places.reserve(
                account, visitor, priority, num_free_slots, self._unreserve, is_api=is_api
            )

    def reserve_all(
        self,
        num: int,
        visitor: str | None = None,
        priority: int = 0,
        limits: VisitorLimits = NO_LIMITS,
        *,
        is_api: bool = False,
    ) -> list[Reservation]:
        """Reserve `num` places or none; parameters and errors are those of `reserve`."""
        with self._changed:
            self._check_open()
            num_free = self._places.num_free(is_api=is_api)
            if 0 < num_free < num:
                raise TooManyRequests(f"{num} places are needed and {num_free} are free; try again later")
            reservations: list[Reservation] = []
            try:
                for _ in range(num):
                    reservations.append(self.reserve(visitor, priority, limits, is_api=is_api))
            except TooManyRequests:
                for reservation in reservations:
                    reservation.close()
                raise
            return reservations

    def release(self, request: GenerationRequest) -> None:
        """Give back the place of a finished request."""
        with self._changed:
            reservation = self._places.release(request)
            self._notify()
        num_used = 0 if request.started_at is None else len(request.prompt_ids) + request.num_generated
        self._on_freed(reservation, num_used)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no place is taken; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._places.num_taken, timeout)

    def _unreserve(self, reservation: Reservation, num_tokens: int) -> None:
        with self._changed:
            had_place = self._places.unreserve(reservation, num_tokens)
            self._notify()
        if had_place:
            self._on_freed(reservation, num_tokens)

    # -- requests ------------------------------------------------------------------------------------

    def put(self, request: GenerationRequest, reservation: Reservation) -> None:
        """Submit a request, which takes over the place of the reservation.

        :raises TooManyRequests: the visitor's tokens have been used up since the reservation
        :raises NotAccepting: the queue is closed
        """
        with self._changed:
            self._check_open()
            self._places.submit(request, reservation)
            self._waiting.add(reservation.visitor, reservation.priority, request)
            self._notify()

    def hand_over(self, request: GenerationRequest, following: GenerationRequest) -> None:
        """Submit a request in the place of a finished one, whose reply it continues.

        :raises NotAccepting: all requests are being ended
        """
        with self._changed:
            if self._is_ended:
                raise NotAccepting("the server is stopping")
            self._begin_following(following, self._places.hand_over(request, following))
            self._notify()

    def take(self, worker: int, *, wait: bool) -> GenerationRequest | None:
        """Return the next request if this worker thread should run it, else None.

        :param wait: block until there is one; then None means that the queue is exhausted or the thread
            retired
        """
        if not wait and not self._has_next:
            return None  # the usual case of a step, without locking
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self.is_exhausted or self.is_retired(worker) or self._is_next(worker)
                )
            if not self._is_next(worker):
                return None
            request = self._pop()
            assert request is not None
            self._dispatcher.take(worker, request)
            self._places.on_started(request)
            self._notify()
            return request

    def wait_for_arriving(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds while no request is ready and places are reserved for some to come.

        :returns: whether a request is ready
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting.has_ready or not self._places.num_reserved, timeout)
            return self._waiting.has_ready

    def done(self, worker: int, request: GenerationRequest) -> bool:
        """Report that a request has left its slot.

        :returns: False if the thread was retired, so that somebody else finishes the request
        """
        with self._changed:
            if not self._dispatcher.remove(worker, request):
                return False
            self._waiting.refresh(self._places.on_left_slot(request))
            self._notify()
            return True

    def discard(self, request: GenerationRequest) -> bool:
        """Remove a waiting request; return False if it was not waiting any more."""
        with self._changed:
            reservation = self._places.get(request)
            if reservation is None:
                return False
            if not self._remove(request, reservation):
                return False
            self._places.on_left_unserved(request)
            return True

    def pop_overdue(self) -> list[GenerationRequest]:
        """Remove and return the waiting requests that must end; checks ten times a second at most."""
        if not self.num_waiting or self._clock() - self._checked_overdue_at < OVERDUE_CHECK_SEC:
            return []
        with self._changed:
            self._checked_overdue_at = self._clock()
            overdue = [request for request in self._in_queue() if request.stop_reason is not None]
            for request in overdue:
                self.discard(request)
            return overdue

    def position(self, request: GenerationRequest) -> int:
        """Return 1 for the next request to run, 0 for one that is not waiting."""
        with self._changed:
            return self._waiting.position(request)

    def requests(self) -> list[GenerationRequest]:
        """Return all requests that were submitted and are not released."""
        with self._changed:
            return self._places.requests

    def refuse_new(self) -> None:
        """Accept nothing from now on; requests that were accepted go on."""
        with self._changed:
            self._is_closed = True
            self._notify()

    def close(self) -> list[GenerationRequest]:
        """Accept nothing from now on, wake all threads, and return the requests that were waiting."""
        with self._changed:
            self._is_closed = self._is_ended = True
            waiting = self._in_queue()
            for request in waiting:
                self.discard(request)
            self._notify()
            return waiting

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotAccepting("the server is stopping and takes no new requests")

    def _is_next(self, worker: int) -> bool:
        request = self._peek()
        return request is not None and self._dispatcher.is_next(worker, request)

    # -- for queues that share turns -----------------------------------------------------------------

    @property
    def _has_next(self) -> bool:
        """Whether some request may run now; read without the lock."""
        return self._waiting.has_ready

    def _peek(self) -> GenerationRequest | None:
        return self._waiting.peek()

    def _pop(self) -> GenerationRequest | None:
        return self._waiting.pop()

    def _remove(self, request: GenerationRequest, reservation: Reservation) -> bool:
        return self._waiting.remove(reservation.visitor, reservation.priority, request)

    def _begin_following(self, request: GenerationRequest, reservation: Reservation) -> None:
        """Let a request wait that continues a reply."""
        reservation.visitor.num_waiting += 1
        self._waiting.add(reservation.visitor, reservation.priority, request)

    def _in_queue(self) -> list[GenerationRequest]:
        """Return all waiting requests, in any order."""
        return list(self._waiting)

    def _notify(self) -> None:
        """Wake those who wait for a change; called with the lock."""
        self._changed.notify_all()

    def _on_freed(self, reservation: Reservation, num_used: int) -> None:
        """Follow up on a place that is free; called without the lock.

        :param num_used: tokens of its prompt and its reply
        """

    def shared_position(self, request: GenerationRequest) -> int | None:
        """Return the position of a waiting request among those of all servers; None if it is not known."""
        return None

    # -- worker threads that come and go -------------------------------------------------------------

    def add_worker(self, predecessor: int) -> int:
        """Register the successor of a worker thread, to be set ready later; return its number."""
        with self._changed:
            return self._dispatcher.add_worker(predecessor)

    def set_ready(self, worker: int) -> None:
        with self._changed:
            self._dispatcher.set_ready(worker)
            self._notify()

    def retire(self, worker: int) -> list[GenerationRequest]:
        """Let a worker thread take nothing any more, and return the requests that it had."""
        with self._changed:
            taken = self._dispatcher.retire(worker)
            for request in taken:
                self._waiting.refresh(self._places.on_left_slot(request))
            self._notify()
            return taken

    def is_retired(self, worker: int) -> bool:
        return self._dispatcher.is_retired(worker)
