"""A conversation has one running reply at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import TIMEOUT

from chatstream_flask.conversation.local_leases import LocalLease, LocalLeases
from chatstream_flask.errors import ConversationBusy


class Store:
    """Store that keeps what was saved, with the id of its conversation."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, dict[str, Any]]] = []

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        return None

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        self.saved.append((lease.conversation_id, record))


def test_a_second_hold_is_refused_until_the_first_is_closed() -> None:
    leases = LocalLeases(Store())
    lease = leases.hold("a")
    leases.hold("b")
    assert repr(leases) == "<LocalLeases [2 held]>"
    with pytest.raises(ConversationBusy, match="already has a running reply"):
        leases.hold("a")
    lease.close()
    lease.close()
    assert repr(leases) == "<LocalLeases [1 held]>"


def test_closing_an_old_lease_leaves_the_new_one_alone() -> None:
    leases = LocalLeases(Store())
    old = leases.hold("a")
    old.close()
    leases.hold("a")
    old.close()
    with pytest.raises(ConversationBusy):
        leases.hold("a")


def test_an_ended_lease_saves_nothing_and_the_next_may_begin_at_once() -> None:
    store = Store()
    leases = LocalLeases(store)
    lease = leases.hold("a")
    lease.save({"n": 1})
    leases.revoke("a")
    lease.save({"n": 2})
    leases.hold("a").save({"n": 3})
    lease.close()
    assert leases.is_held("a")
    assert store.saved == [("a", {"n": 1}), ("a", {"n": 3})]
    leases.revoke("nobody's")


def test_a_clear_waits_for_a_write_that_has_begun() -> None:
    """Check that a save that has started cannot restore a conversation after it was deleted."""
    order: list[str] = []
    is_writing, may_end = threading.Event(), threading.Event()

    class SlowStore(Store):
        def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
            is_writing.set()
            assert may_end.wait(TIMEOUT)
            order.append("saved")

    leases = LocalLeases(SlowStore())
    lease = leases.hold("a")

    def clear() -> None:
        leases.revoke("a")
        order.append("cleared")

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lease.save, {})
        assert is_writing.wait(TIMEOUT)
        clearing = pool.submit(clear)
        may_end.set()
        writing.result(TIMEOUT)
        clearing.result(TIMEOUT)
    assert order == ["saved", "cleared"]


def test_of_many_at_once_one_holds() -> None:
    leases = LocalLeases(Store())
    barrier = threading.Barrier(16)

    def hold(_: int) -> bool:
        barrier.wait(TIMEOUT)
        try:
            leases.hold("a")
        except ConversationBusy:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(hold, range(16))) == 1
