"""What an engine shares with those of other servers: limits of visitors, and their turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from ..config import VisitorLimits


class PlaceState(Enum):
    """What a place is taken for."""

    RESERVED = "reserved"  # no request was submitted yet
    WAITING = "waiting"
    RUNNING = "running"  # may run, runs, or has not been stored yet


class Place(NamedTuple):
    """A place of the queue as the other engines know it."""

    id: str
    visitor: str  # of an anonymous one a name of its own
    priority: int
    limits: VisitorLimits


class SharedQueue(Protocol):
    """The queue of an engine, as far as it is shared."""

    @property
    def num_waiting(self) -> int: ...

    def start_next(self, choose: Callable[[list[list[str]]], str | None]) -> bool | None:
        """Let the request run that `choose` returns.

        :param choose: gets the ids of the places whose requests may be next, in a list for each priority
        :returns: False if it chose none; None if there is none to choose from, or no slot
        """

    def held_places(self) -> list[tuple[Place, PlaceState]]:
        """Return the places that the other engines know of."""


class Sharing(Protocol):
    """Keeps an engine in touch with those of other servers, from its start to its stop.

    `free`, `position` and `wake` do not raise; the others raise StoreUnavailable where the others cannot be
    reached.
    """

    def start(self, queue: SharedQueue, num_slots: int, max_waiting: int) -> None:
        """Begin.

        :param num_slots: replies that this engine generates at once
        :param max_waiting: requests that may wait, in all engines together
        """

    def stop(self) -> None:
        """Leave the others; called when all requests have ended. Idempotent."""

    def wake(self) -> None:
        """Look for requests that may run; any thread calls it, with any lock."""

    def reserve(self, places: Sequence[Place]) -> None:
        """Take places for one visitor, all or none.

        :raises TooManyRequests: too many requests wait in all engines, or the visitor has reached a limit
        """

    def submit(self, place: Place, num_tokens: int) -> None:
        """Let a place wait for its turn, and count the tokens that its request may use.

        :raises TooManyRequests: the visitor's tokens have been used up since the reservation
        """

    def free(self, place: Place, num_tokens: int) -> None:
        """Give a place back.

        :param num_tokens: that its visitor has used beyond those counted before; negative: fewer
        """

    def position(self, place_id: str) -> int | None:
        """Return the position of a waiting request among those of all engines; None if it is not known."""
