"""The places of the queue: who has reserved one, and which requests hold one."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..errors import TooManyRequests
from .request import GenerationRequest, Status
from .sharing import Place
from .visitor import Visitor

SWEEP_SEC = 60.0  # interval at which idle visitors are forgotten


class Reservation:
    """A reserved place in the queue. Take it before any costly work; submit a request with it or close it."""

    def __init__(
        self,
        visitor: Visitor,
        name: str | None,
        priority: int,
        unreserve: Callable[[Reservation, int], None],
        is_api: bool,
    ) -> None:
        self.visitor = visitor
        self.is_api = is_api
        self.priority = priority
        self.id = secrets.token_hex(8)
        self.name = f"anonymous:{self.id}" if name is None else name
        self.is_shared = False  # whether other engines know of it
        self.num_shared_tokens = 0  # that they have counted for it
        self._unreserve = unreserve

    @property
    def place(self) -> Place:
        """The place as other engines know it."""
        return Place(self.id, self.name, self.priority, self.visitor.limits)

    def close(self, num_tokens: int = 0) -> None:
        """Give the place back. Idempotent.

        :param num_tokens: tokens of a prompt that was refused, which the visitor has used
        :raises RuntimeError: a request was submitted with it, which keeps the place until it has finished
        """
        self._unreserve(self, num_tokens)


class Places:
    """A bounded number of places and the accounts of their visitors.

    The queue's lock guards it, but any thread may read `num_taken`.
    """

    def __init__(self, capacity: int, clock: Callable[[], float], api_capacity: int | None = None) -> None:
        self.capacity = capacity
        self.api_capacity = api_capacity  # of requests of /v1; None: they share the others
        self.visitors: dict[object, Visitor] = {}  # by name; an anonymous one by itself
        self.submitted: dict[GenerationRequest, Reservation] = {}  # until the request is released
        self._clock = clock
        self._reserved: set[Reservation] = set()  # without a request yet
        self._swept_at = float("-inf")

    @property
    def num_taken(self) -> int:
        return len(self._reserved) + len(self.submitted)

    def num_free(self, *, is_api: bool) -> int:
        """Return how many places requests of one kind may take."""
        if self.api_capacity is None:
            return self.capacity - self.num_taken
        num_taken = sum(held.is_api is is_api for held in (*self._reserved, *self.submitted.values()))
        return self._capacity_of(is_api=is_api) - num_taken

    def _capacity_of(self, *, is_api: bool) -> int:
        return self.api_capacity if is_api and self.api_capacity is not None else self.capacity

    @property
    def may_grow(self) -> bool:
        """Whether a request that follows may come, although no new ones are accepted; read by any thread."""
        return any(request.follow_up is not None for request in self.requests)

    @property
    def num_reserved(self) -> int:
        """Places whose requests are still to come."""
        return len(self._reserved)

    @property
    def num_startable(self) -> int:
        """How many waiting requests may run as soon as there are slots."""
        return sum(visitor.num_startable for visitor in self.visitors.values())

    @property
    def requests(self) -> list[GenerationRequest]:
        """All requests that were submitted and are not released."""
        return list(self.submitted)

    @property
    def reserved(self) -> list[Reservation]:
        """All reservations that no request was submitted with."""
        return list(self._reserved)

    def get(self, request: GenerationRequest) -> Reservation | None:
        return self.submitted.get(request)

    def visitor(self, name: str | None) -> Visitor:
        """Return the visitor of this name, or a new one; without a name always a new one."""
        if name is None:
            return Visitor()
        self._forget_idle_visitors()
        return self.visitors.get(name) or Visitor()

    def reserve(
        self,
        visitor: Visitor,
        name: str | None,
        priority: int,
        num_free_slots: int,
        unreserve: Callable[[Reservation, int], None],
        *,
        is_api: bool = False,
    ) -> Reservation:
        """Take a place for a visitor; raise TooManyRequests if there is none, or none for this visitor."""
        if self.num_free(is_api=is_api) <= 0:
            num = self._capacity_of(is_api=is_api)
            raise TooManyRequests(f"all {num} places are taken; try again later")
        visitor.check_tokens(self._clock())
        if visitor.limits.max_waiting is not None:
            visitor.check_waiting(num_free_slots - (self.num_startable - visitor.num_startable))
        visitor.num_waiting += 1
        self.visitors[visitor if name is None else name] = visitor
        reservation = Reservation(visitor, name, priority, unreserve, is_api)
        self._reserved.add(reservation)
        return reservation

    def unreserve(self, reservation: Reservation, num_tokens: int) -> bool:
        """Return whether the reservation still had its place."""
        if reservation in self._reserved:
            self._reserved.remove(reservation)
            reservation.visitor.num_waiting -= 1
            reservation.visitor.use_tokens(num_tokens, self._clock())
            self._forget_anonymous(reservation.visitor)
            return True
        if reservation in self.submitted.values():
            raise RuntimeError("a request was submitted with this reservation; it keeps its place")
        return False

    def submit(self, request: GenerationRequest, reservation: Reservation) -> None:
        """Turn a reservation into the place of a request, and count all tokens the request may use."""
        if reservation not in self._reserved:
            raise RuntimeError(f"{request!r} needs an open reservation of its own")
        visitor, now = reservation.visitor, self._clock()
        visitor.check_tokens(now)
        visitor.use_tokens(len(request.prompt_ids) + request.max_generated, now)
        self.submitted[request] = reservation
        self._reserved.remove(reservation)

    def release(self, request: GenerationRequest) -> Reservation:
        """Return the reservation that the request had."""
        if request.status is not Status.FINISHED:
            raise RuntimeError(f"{request!r} keeps its place until it has finished")
        reservation = self.submitted.pop(request)
        self._forget_anonymous(reservation.visitor)
        return reservation

    def hand_over(self, request: GenerationRequest, following: GenerationRequest) -> Reservation:
        """Give the place of a finished request to another; count the tokens that this one may use."""
        reservation = self.submitted.pop(request)
        reservation.num_shared_tokens -= len(request.prompt_ids) + request.num_generated  # used since counted
        reservation.visitor.use_tokens(len(following.prompt_ids) + following.max_generated, self._clock())
        self.submitted[following] = reservation
        return reservation

    # -- what happens to submitted requests ----------------------------------------------------------

    def on_started(self, request: GenerationRequest) -> None:
        self.submitted[request].visitor.num_waiting -= 1

    def on_left_slot(self, request: GenerationRequest) -> Visitor:
        """Give back the tokens that were not generated; return the visitor, which may run one more."""
        visitor = self.submitted[request].visitor
        visitor.num_running -= 1
        visitor.use_tokens(request.num_generated - request.max_generated, self._clock())
        return visitor

    def on_left_unserved(self, request: GenerationRequest) -> None:
        """Give back all tokens of a request that never ran."""
        visitor = self.submitted[request].visitor
        visitor.num_waiting -= 1
        visitor.use_tokens(-len(request.prompt_ids) - request.max_generated, self._clock())

    # -- visitors ------------------------------------------------------------------------------------

    def _forget_anonymous(self, visitor: Visitor) -> None:
        self.visitors.pop(visitor, None)  # named ones are found by name, and forgotten when idle

    def _forget_idle_visitors(self) -> None:
        now = self._clock()
        if now - self._swept_at >= SWEEP_SEC:
            self._swept_at = now
            self.visitors = {key: it for key, it in self.visitors.items() if not it.is_idle(now)}
