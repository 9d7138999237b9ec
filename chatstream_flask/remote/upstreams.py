"""Upstreams: the engines of one chat, and which of them generates a reply."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from .upstream import State, Upstream

# More replies than this, times the mean and in addition, send a conversation to the least loaded engine.
MAX_LOAD, EXTRA_LOAD = 1.25, 2


class Upstreams:
    """A set of engines that may change while they are used. Any thread may use it."""

    def __init__(self, urls: Sequence[str], max_running_each: int | None = None) -> None:
        """Start with engines that have not been probed.

        :param max_running_each: most replies that one engine generates at once; None: no limit
        """
        self.max_running_each = max_running_each
        self._lock = threading.Lock()  # guards changes of _all
        self._all = [Upstream(url) for url in urls]

    def __repr__(self) -> str:
        return f"<Upstreams {self._all}>"

    @property
    def all(self) -> list[Upstream]:
        return list(self._all)

    @property
    def up(self) -> list[Upstream]:
        return [upstream for upstream in self._all if upstream.is_up]

    def change(self, urls: Iterable[str]) -> None:
        """Add engines that are new, and drain those that are not named any more."""
        with self._lock:
            known = {upstream.url: upstream for upstream in self._all if upstream.state is not State.DRAINING}
            wanted = dict.fromkeys(urls)
            for url, upstream in known.items():
                if url not in wanted:
                    upstream.drain()
            draining = [it for it in self._all if it.state is State.DRAINING and it.num_running]
            self._all = [known.get(url) or Upstream(url) for url in wanted] + draining

    def choose(self, key: str, avoided: Upstream | None = None) -> Upstream | None:
        """Return the engine for a reply; None if none has room now.

        The engine with the highest hash of its URL and the key (rendezvous hashing) has generated the other
        replies of this conversation and may still have its prompt in the prefix cache. If it has no room or
        much more to do than the mean (consistent hashing with bounded loads, Mirrokni et al. 2016), the least
        loaded engine is chosen.

        :param key: equal for all replies of a conversation
        :param avoided: an engine that has just failed; chosen only if it is the only one
        """
        up = self.up
        able = [it for it in up if not it.is_busy and self._has_room(it)]
        if len(able) > 1:
            able = [it for it in able if it is not avoided]
        if not able:
            return None
        total = sum(it.num_running for it in up) + 1
        bound = MAX_LOAD * total / len(up) + EXTRA_LOAD
        ranked = sorted(able, key=lambda it: _rank(it.url, key), reverse=True)
        if ranked[0].num_running < bound:
            return ranked[0]
        return min(ranked, key=lambda it: it.num_running)

    def _has_room(self, upstream: Upstream) -> bool:
        return self.max_running_each is None or upstream.num_running < self.max_running_each


def _rank(url: str, key: str) -> bytes:
    return blake2b(f"{url} {key}".encode(), digest_size=8).digest()
