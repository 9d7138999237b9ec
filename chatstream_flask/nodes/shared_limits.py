"""Limits and turns of visitors over all servers that share a Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..config import VisitorLimits
from ..engine.fair_queue import FairQueue
from ..engine.sharing import Place, PlaceState, SharedQueue
from ..engine.visitor import Visitor, out_of_tokens, too_many_waiting
from ..errors import StoreUnavailable, TooManyRequests
from . import limit_scripts as scripts
from .lifetime import NODE_TTL_SEC
from .shared_redis import AWAY, SharedRedis, text_of

TTL_MS = round(NODE_TTL_SEC * 1000)


class SharedLimits:
    """The places of this server's queue in Redis, beside those of the other servers.

    What Redis has is only a copy: whenever the two may differ, `register` writes all places of this server
    anew. Until then nothing new is accepted.
    """

    def __init__(self, shared: SharedRedis, queue: SharedQueue, num_slots: int, max_waiting: int) -> None:
        """Make it; parameters are those of `Sharing.start`."""
        self._shared = shared
        self._queue = queue
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._writing = threading.Lock()  # between reading the queue's places and writing them to Redis
        self.is_in_step = False  # what Redis has is what the queue has
        self._num_failures = 0  # of commands
        self.positions: dict[str, int] = {}  # of waiting requests, by place id

    def beat(self) -> bool:
        """Say that this server is alive; write all of its places if Redis does not know them.

        :returns: False if Redis did not know them
        :raises StoreUnavailable: Redis failed
        """
        self.is_in_step = bool(self._run(scripts.BEAT, TTL_MS)) and self.is_in_step
        if self.is_in_step:
            return True
        self.register()
        return False

    def register(self) -> None:
        """Write all places of this server anew.

        :raises StoreUnavailable: Redis failed
        """
        with self._writing:
            num_failures = self._num_failures
            places = [(place.id, _json(place, state)) for place, state in self._queue.held_places()]
            self._run(scripts.REGISTER, TTL_MS, self._num_slots, *(arg for pair in places for arg in pair))
            self.is_in_step = self._num_failures == num_failures

    def leave(self) -> None:
        """Give up all places.

        :raises StoreUnavailable: Redis failed
        """
        self._run(scripts.LEAVE)

    # -- as `Sharing` says ---------------------------------------------------------------------------

    def reserve(self, places: Sequence[Place]) -> None:
        place = places[0]
        limits = place.limits
        self._run_known(
            limits,
            scripts.RESERVE,
            self._max_waiting,
            _limit(limits.max_waiting),
            _limit(limits.max_tokens_per_minute),
            _json(place, PlaceState.RESERVED),
            *(place.id for place in places),
        )

    def submit(self, place: Place, num_tokens: int) -> None:
        limits = place.limits
        self._run_known(limits, scripts.SUBMIT, place.id, num_tokens, _limit(limits.max_tokens_per_minute))

    def free(self, place: Place, num_tokens: int) -> None:
        with self._writing:
            if not self.is_in_step:  # it is written anew, without this place
                return
            with suppress(StoreUnavailable):  # the same
                self._run(scripts.FREE, place.id, num_tokens, _limit(place.limits.max_tokens_per_minute))

    def start(self, priorities: list[list[str]]) -> str | None:
        """Return the id of the place whose request may run now; None if there is none.

        :param priorities: ids of the places that may be next
        :raises StoreUnavailable: Redis failed
        """
        args = [arg for number, ids in enumerate(priorities) for id_ in ids for arg in (number, id_)]
        chosen = text_of(self._run(scripts.START, *args))
        if chosen == "unknown":
            self.register()
            return None
        return chosen or None

    # -- the place in the queue ----------------------------------------------------------------------

    def read_positions(self) -> None:
        """Find the positions of all waiting requests.

        :raises StoreUnavailable: Redis failed
        """
        self.positions = positions(map(json.loads, self._run(scripts.WAITING)))

    # ------------------------------------------------------------------------------------------------

    def _run_known(self, limits: VisitorLimits, script: str, *args: str | int) -> None:
        """Run a script that may refuse; register first if Redis does not know this server or its place."""
        if not self.is_in_step:  # soon found out by `beat`; nobody waits for it
            raise StoreUnavailable(AWAY)
        for _ in range(2):
            word, *numbers = map(text_of, self._run(script, *args))
            match word:
                case "ok":
                    return
                case "unknown":
                    self.register()
                case "queue_full":
                    raise TooManyRequests("the places of all servers are taken; try again later")
                case "tokens":
                    raise out_of_tokens(limits.max_tokens_per_minute or 0, float(numbers[0]))
                case "waiting":
                    raise too_many_waiting(limits, int(numbers[0]), int(numbers[1]))
        raise StoreUnavailable(AWAY)

    def _run(self, script: str, *args: str | int) -> Any:
        try:
            return self._shared.run(script, self._shared.node, *args)
        except BaseException:  # whether Redis has done it is not known
            self._num_failures += 1
            self.is_in_step = False
            raise


def positions(waiting: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return the position of each waiting request, from 1, by the id of its place.

    :param waiting: as the script WAITING returns them
    """
    queue, visitors = FairQueue[str](), dict[str, Visitor]()
    for place in sorted(waiting, key=lambda place: (place["turn"], place["since"])):
        limits = VisitorLimits(max_running=None if place["max_running"] < 0 else place["max_running"])
        visitor = visitors.setdefault(place["visitor"], Visitor(limits, place["num_running"]))
        queue.add(visitor, place["priority"], place["id"])
    return {place_id: number for number, place_id in enumerate(queue.in_order(), 1)}


def _json(place: Place, state: PlaceState) -> str:
    return json.dumps(
        {
            "visitor": place.visitor,
            "priority": place.priority,
            "max_running": _limit(place.limits.max_running),
            "state": state.value,
        }
    )


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit
