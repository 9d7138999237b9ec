"""Leases across processes: the back end stores them, and one thread per process renews them.

The leases of a process that was killed are not renewed, so they expire after `lease_sec`.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from ..errors import StoreUnavailable
from .record_lines import Line, RecordLines

logger = logging.getLogger("chatstream_flask")

RENEWALS_PER_LEASE = 3  # two renewals in a row may fail before a lease expires
RELEASE_RETRY_SEC = 0.5
MAX_UNRELEASED = 1000  # leases whose release is tried again; the oldest beyond that expire by themselves


class LeaseBackend(Protocol):
    """Back end that stores a lease as a random token beside the conversation; each method is atomic.

    An expired token stays valid until another one replaces it. So a process that was suspended, or could not
    reach its back end, for longer than `lease_sec` loses no reply unless another process took the lease.
    """

    lease_sec: float

    def read_lines(self, conversation_id: str) -> Sequence[str | bytes]:
        """Return the lines of the record; none if there is no record."""

    def save_if_held(self, conversation_id: str, token: str, line: Line) -> bool:
        """Write a line if the token is still valid; return whether it is. Writing it again changes nothing.

        :raises LinesChanged: what the line continues is not there
        """

    def renew(self, conversation_id: str, token: str) -> bool:
        """Extend the lease if the token is still valid; return whether it is."""

    def release(self, conversation_id: str, token: str) -> None:
        """Remove the token if it is still valid."""


class SharedLease:
    """Lease whose token is in a back end that other processes use too."""

    def __init__(self, keeper: LeaseKeeper, conversation_id: str, token: str) -> None:
        self._keeper = keeper
        self._is_closed = False
        self._lines = RecordLines()
        self.conversation_id = conversation_id
        self.token = token

    def __repr__(self) -> str:
        return f"<SharedLease {'closed' if self._is_closed else 'held'}>"

    def load(self) -> dict[str, Any] | None:
        return self._lines.read(self._backend.read_lines(self.conversation_id))

    def save(self, record: dict[str, Any]) -> bool:
        return self._lines.store(record, self._write)

    def _write(self, line: Line) -> bool:
        return not self._is_closed and self._backend.save_if_held(self.conversation_id, self.token, line)

    def renew(self) -> bool:
        return self._backend.renew(self.conversation_id, self.token)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._keeper.release(self)

    @property
    def _backend(self) -> LeaseBackend:
        return self._keeper.backend


class UnreleasedLease(NamedTuple):
    """Lease that has ended, but that the back end could not release."""

    conversation_id: str
    token: str
    expires_at: float  # on the monotonic clock


class ProcessLeases:
    """Leases of one process, and the thread that renews them.

    A forked child gets its own object, as it has neither the thread nor a usable copy of the lock.
    """

    def __init__(self) -> None:
        self.leases: dict[str, SharedLease] = {}  # by token
        self.unreleased: dict[str, UnreleasedLease] = {}  # by token, the oldest first
        self.thread: threading.Thread | None = None
        self.changed = threading.Condition()  # guards everything above


class LeaseKeeper:
    """Renews the leases of this process in a thread that runs while there are any.

    The thread also releases leases that the back end could not release when they ended.
    """

    def __init__(self, backend: LeaseBackend) -> None:
        self.backend = backend
        self._by_pid: dict[int, ProcessLeases] = {}

    def __repr__(self) -> str:
        return f"<LeaseKeeper [{len(self._held.leases)} held]>"

    def new_token(self) -> str:
        return secrets.token_hex(16)

    def add(self, conversation_id: str, token: str) -> SharedLease:
        """Return the lease of a token that the back end has stored, and renew it from now on."""
        held = self._held
        lease = SharedLease(self, conversation_id, token)
        with held.changed:
            held.leases[token] = lease
            self._start_thread(held)
        return lease

    def remove(self, lease: SharedLease) -> None:
        """Stop renewing a lease."""
        held = self._held
        with held.changed:
            held.leases.pop(lease.token, None)
            held.changed.notify()

    def release(self, lease: SharedLease) -> None:
        """Release a lease now, or when the back end works again."""
        self.remove(lease)
        try:
            self.backend.release(lease.conversation_id, lease.token)
        except StoreUnavailable as error:
            logger.warning(
                "a lease could not be released; it is tried again until the lease expires in %g s: %s",
                self.backend.lease_sec,
                error,
            )
            self._release_later(lease.conversation_id, lease.token)

    @contextmanager
    def released_on_failure(self, conversation_id: str, token: str) -> Iterator[None]:
        """Release the token later if the block fails: the back end may have stored it before it failed."""
        try:
            yield
        except StoreUnavailable:
            self._release_later(conversation_id, token)
            raise

    def _release_later(self, conversation_id: str, token: str) -> None:
        held = self._held
        with held.changed:
            expires_at = time.monotonic() + self.backend.lease_sec
            held.unreleased[token] = UnreleasedLease(conversation_id, token, expires_at)
            if len(held.unreleased) > MAX_UNRELEASED:
                del held.unreleased[next(iter(held.unreleased))]
            self._start_thread(held)
            held.changed.notify()

    def close(self) -> None:
        """Stop renewing, and wait for the thread to end; the leases of this process expire."""
        held = self._held
        with held.changed:
            thread = held.thread
            held.leases.clear()
            held.unreleased.clear()
            held.changed.notify()
        if thread is not None:
            thread.join()

    def renew_all(self) -> None:
        """Renew every lease once; drop those whose token was replaced."""
        for lease in self._leases():
            try:
                if not lease.renew():
                    self.remove(lease)
            except StoreUnavailable as error:  # it is tried again next time
                logger.warning("a lease could not be renewed: %s", error)

    def release_all(self) -> None:
        """Release the leases that could not be released before, unless the back end still fails."""
        held = self._held
        with held.changed:
            unreleased = list(held.unreleased.values())
        for lease in unreleased:
            if time.monotonic() < lease.expires_at:
                try:
                    self.backend.release(lease.conversation_id, lease.token)
                except StoreUnavailable:
                    return
            with held.changed:
                held.unreleased.pop(lease.token, None)

    def _leases(self) -> list[SharedLease]:
        held = self._held
        with held.changed:
            return list(held.leases.values())

    def _start_thread(self, held: ProcessLeases) -> None:
        if held.thread is None:
            name = "chatstream-leases"
            held.thread = threading.Thread(target=self._run, args=[held], name=name, daemon=True)
            held.thread.start()

    def _run(self, held: ProcessLeases) -> None:
        renew_at = self._next_renewal()
        while self._is_needed(held, renew_at):
            self.release_all()
            if time.monotonic() >= renew_at:
                self.renew_all()
                renew_at = self._next_renewal()

    def _next_renewal(self) -> float:
        return time.monotonic() + self.backend.lease_sec / RENEWALS_PER_LEASE

    def _is_needed(self, held: ProcessLeases, renew_at: float) -> bool:
        """Wait until something is due; return False, which ends the thread, if there are no leases."""
        with held.changed:
            if held.leases or held.unreleased:
                pause = max(renew_at - time.monotonic(), 0)
                held.changed.wait(min(pause, RELEASE_RETRY_SEC) if held.unreleased else pause)
            if not held.leases and not held.unreleased:
                held.thread = None
            return held.thread is not None

    @property
    def _held(self) -> ProcessLeases:
        return self._by_pid.setdefault(os.getpid(), ProcessLeases())
