"""Leases that hold across processes: a back end keeps them, and one small thread renews them.

A process that is killed renews nothing, so its conversations are free again after `lease_sec`.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from typing import Any, Protocol

from ..errors import StoreUnavailable
from .record_json import to_json

logger = logging.getLogger("chatstream_flask")

RENEWALS_PER_LEASE = 3  # two may fail before it is over


class LeaseBackend(Protocol):
    """A lease is a random token beside the conversation. Each method is one atomic step of the back end.

    A token that has run out still counts until another one takes its place: a process that was frozen, or
    whose back end was away, for longer than `lease_sec` loses no reply by it.
    """

    lease_sec: float

    def save_if_held(self, conversation_id: str, token: str, text: str) -> bool:
        """Whether the token still counts."""

    def renew(self, conversation_id: str, token: str) -> bool:
        """Whether the token still counts."""

    def release(self, conversation_id: str, token: str) -> None: ...


class SharedLease:
    """What `hold` of such a store gives, once the back end has its token."""

    def __init__(self, keeper: LeaseKeeper, conversation_id: str, token: str) -> None:
        self._keeper = keeper
        self._is_closed = False
        self.conversation_id = conversation_id
        self.token = token

    def __repr__(self) -> str:
        return f"<SharedLease {'closed' if self._is_closed else 'held'}>"

    def save(self, record: dict[str, Any]) -> bool:
        text = to_json(record)
        return not self._is_closed and self._backend.save_if_held(self.conversation_id, self.token, text)

    def renew(self) -> bool:
        return self._backend.renew(self.conversation_id, self.token)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._keeper.remove(self)
        try:
            self._backend.release(self.conversation_id, self.token)
        except StoreUnavailable as error:
            logger.warning("a lease ends by itself in %g s: %s", self._backend.lease_sec, error)

    @property
    def _backend(self) -> LeaseBackend:
        return self._keeper.backend


class ProcessLeases:
    """Those of one process; a fork copies neither its thread nor who holds its lock."""

    def __init__(self) -> None:
        self.leases: dict[str, SharedLease] = {}  # by token
        self.thread: threading.Thread | None = None
        self.changed = threading.Condition()  # guards everything above


class LeaseKeeper:
    """Its thread lives while something is held."""

    def __init__(self, backend: LeaseBackend) -> None:
        self.backend = backend
        self._of_process: dict[int, ProcessLeases] = {}

    def __repr__(self) -> str:
        return f"<LeaseKeeper [{len(self._held.leases)} held]>"

    def new_token(self) -> str:
        return secrets.token_hex(16)

    def add(self, conversation_id: str, token: str) -> SharedLease:
        held = self._held
        lease = SharedLease(self, conversation_id, token)
        with held.changed:
            if held.thread is None:
                name = "chatstream-leases"
                thread = threading.Thread(target=self._run, args=[held], name=name, daemon=True)
                thread.start()
                held.thread = thread
            held.leases[token] = lease
        return lease

    def remove(self, lease: SharedLease) -> None:
        held = self._held
        with held.changed:
            held.leases.pop(lease.token, None)
            held.changed.notify()

    def close(self) -> None:
        """Renews nothing any more and waits for the thread; what is held runs out."""
        held = self._held
        with held.changed:
            thread = held.thread
            held.leases.clear()
            held.changed.notify()
        if thread is not None:
            thread.join()

    def renew_all(self) -> None:
        """The body of the thread's loop."""
        for lease in self._leases():
            try:
                if not lease.renew():
                    self.remove(lease)
            except StoreUnavailable as error:  # until the next time
                logger.warning("a lease could not be renewed: %s", error)

    def _leases(self) -> list[SharedLease]:
        held = self._held
        with held.changed:
            return list(held.leases.values())

    def _run(self, held: ProcessLeases) -> None:
        while self._is_needed(held):
            self.renew_all()

    def _is_needed(self, held: ProcessLeases) -> bool:
        """Waits until leases are to be renewed; False when there are none, and the thread ends."""
        with held.changed:
            held.changed.wait_for(
                lambda: not held.leases, timeout=self.backend.lease_sec / RENEWALS_PER_LEASE
            )
            if not held.leases:
                held.thread = None
            return bool(held.leases)

    @property
    def _held(self) -> ProcessLeases:
        return self._of_process.setdefault(os.getpid(), ProcessLeases())
