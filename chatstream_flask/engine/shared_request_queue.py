"""Queue whose limits and turns hold over several servers."""

from __future__ import annotations

from collections.abc import Callable

from .places import Reservation
from .request import GenerationRequest
from .request_queue import RequestQueue
from .sharing import Place, PlaceState, Sharing


class SharedRequestQueue(RequestQueue):
    """Hands out only what the other servers have agreed to: `start_next` moves it into a list for `take`."""

    def __init__(
        self,
        sharing: Sharing,
        capacity: int,
        num_slots: list[int],
        devices: list[int],
        *,
        api_capacity: int | None,
        clock: Callable[[], float],
    ) -> None:
        """Create an empty queue; parameters but the first are those of `RequestQueue`."""
        super().__init__(capacity, num_slots, devices, api_capacity=api_capacity, clock=clock)
        self._sharing = sharing
        self._startable: list[GenerationRequest] = []  # count as running for their visitors

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + len(self._startable)

    # -- `SharedQueue` -------------------------------------------------------------------------------

    def start_next(self, choose: Callable[[list[list[str]]], str | None]) -> bool | None:
        with self._changed:
            if len(self._startable) >= self._dispatcher.num_free_slots:
                return None
            self._hand_out_overdue()
            heads = self._waiting.heads()
            if not heads:
                return None
            requests = {self._id_of(request): request for lane in heads for request in lane}
            ids = [[self._id_of(request) for request in lane] for lane in heads]
        chosen = choose(ids)
        if chosen is None:
            return False
        with self._changed:
            request = requests[chosen]
            reservation = self._places.get(request)  # None: it has ended meanwhile, and its place is free
            if reservation is not None and self._waiting.pop_if_oldest(
                reservation.visitor, reservation.priority, request
            ):
                self._startable.append(request)
                self._changed.notify_all()
        return True

    def held_places(self) -> list[tuple[Place, PlaceState]]:
        with self._changed:
            waiting = set(self._waiting)
            held = [(reservation, PlaceState.RESERVED) for reservation in self._places.reserved]
            for request, reservation in self._places.submitted.items():
                state = PlaceState.WAITING if request in waiting else PlaceState.RUNNING
                held.append((reservation, state))
            return [(reservation.place, state) for reservation, state in held if reservation.is_shared]

    # -- what differs from a queue that is alone -----------------------------------------------------

    @property
    def _has_next(self) -> bool:
        return bool(self._startable)

    def _peek(self) -> GenerationRequest | None:
        return self._startable[0] if self._startable else None

    def _pop(self) -> GenerationRequest | None:
        return self._startable.pop(0)

    def _remove(self, request: GenerationRequest, reservation: Reservation) -> bool:
        if request not in self._startable:
            return super()._remove(request, reservation)
        self._startable.remove(request)
        reservation.visitor.num_running -= 1
        self._waiting.refresh(reservation.visitor)
        return True

    def _begin_following(self, request: GenerationRequest, reservation: Reservation) -> None:
        """Let it run at once: its reply has had its turn among those of all servers."""
        reservation.visitor.num_waiting += 1
        reservation.visitor.num_running += 1
        self._startable.append(request)

    def _in_queue(self) -> list[GenerationRequest]:
        return self._startable + super()._in_queue()

    def _notify(self) -> None:
        super()._notify()
        self._sharing.wake()

    def _on_freed(self, reservation: Reservation, num_used: int) -> None:
        if reservation.is_shared:
            self._sharing.free(reservation.place, num_used - reservation.num_shared_tokens)

    def shared_position(self, request: GenerationRequest) -> int | None:
        with self._changed:
            reservation = self._places.get(request)
        return None if reservation is None else self._sharing.position(reservation.id)

    def _hand_out_overdue(self) -> None:
        """Let worker threads end what must end: while all are idle, none looks for it."""
        for request in [request for request in self._waiting if request.stop_reason is not None]:
            reservation = self._places.submitted[request]
            self._waiting.remove(reservation.visitor, reservation.priority, request)
            reservation.visitor.num_running += 1
            self._waiting.refresh(reservation.visitor)
            self._startable.append(request)
            self._changed.notify_all()

    def _id_of(self, request: GenerationRequest) -> str:
        return self._places.submitted[request].id
