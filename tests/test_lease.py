"""One reply at a time for each conversation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import TIMEOUT

from chatstream_flask.conversation import Leases
from chatstream_flask.errors import ConversationBusy


def test_a_second_hold_is_refused_until_the_first_is_closed() -> None:
    leases = Leases()
    lease = leases.hold("a")
    leases.hold("b")
    assert repr(leases) == "<Leases [2 held]>"
    with pytest.raises(ConversationBusy, match="already has a reply in the making"):
        leases.hold("a")
    lease.close()
    lease.close()
    assert repr(leases) == "<Leases [1 held]>"


def test_closing_an_old_lease_leaves_the_new_one_alone() -> None:
    leases = Leases()
    old = leases.hold("a")
    old.close()
    leases.hold("a")
    old.close()
    with pytest.raises(ConversationBusy):
        leases.hold("a")


def test_a_revoked_lease_writes_nothing() -> None:
    leases = Leases()
    written: list[str] = []
    lease = leases.hold("a")
    lease.write(lambda: written.append("before"))
    leases.revoke("a")
    lease.write(lambda: written.append("after"))
    assert written == ["before"]
    leases.revoke("nobody's")


def test_a_clear_waits_for_a_write_that_has_begun() -> None:
    """Else the write would bring back what the clear deletes."""
    leases = Leases()
    lease = leases.hold("a")
    order: list[str] = []
    is_writing, may_end = threading.Event(), threading.Event()

    def save() -> None:
        is_writing.set()
        assert may_end.wait(TIMEOUT)
        order.append("saved")

    def clear() -> None:
        leases.revoke("a")
        order.append("cleared")

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lease.write, save)
        assert is_writing.wait(TIMEOUT)
        clearing = pool.submit(clear)
        may_end.set()
        writing.result(TIMEOUT)
        clearing.result(TIMEOUT)
    assert order == ["saved", "cleared"]


def test_of_many_at_once_one_holds() -> None:
    leases = Leases()
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
