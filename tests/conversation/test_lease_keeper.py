"""The thread that renews leases, without a real back end."""

from __future__ import annotations

import threading

import pytest
from fakes import TIMEOUT

from chatstream_flask.conversation.lease_keeper import LeaseKeeper
from chatstream_flask.conversation.record_lines import Line
from chatstream_flask.errors import StoreUnavailable


class Tokens:
    """Back end in a dict that counts renewals."""

    def __init__(self, lease_sec: float = 60.0) -> None:
        self.lease_sec = lease_sec
        self.held: dict[str, str] = {}
        self.texts: list[bytes] = []
        self.renewed: list[str] = []
        self.two_renewals = threading.Event()
        self.is_down = False
        self.released = threading.Event()

    def read_lines(self, conversation_id: str) -> list[bytes]:
        return self.texts[-1:]

    def save_if_held(self, conversation_id: str, token: str, line: Line) -> bool:
        if self.held.get(conversation_id) == token:
            self.texts.append(line.text)
        return self.held.get(conversation_id) == token

    def renew(self, conversation_id: str, token: str) -> bool:
        if self.is_down:
            raise StoreUnavailable("down")
        self.renewed.append(conversation_id)
        if len(self.renewed) >= 2:
            self.two_renewals.set()
        return self.held.get(conversation_id) == token

    def release(self, conversation_id: str, token: str) -> None:
        if self.is_down:
            raise StoreUnavailable("down")
        del self.held[conversation_id]
        self.released.set()


def wait_until_no_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "chatstream-leases":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "chatstream-leases"]


def test_one_thread_while_something_is_held() -> None:
    keeper = LeaseKeeper(Tokens())
    backend = keeper.backend
    assert isinstance(backend, Tokens)
    for _ in range(2):
        assert threads() == []
        backend.held.update(a="1", b="2")
        leases = [keeper.add("a", "1"), keeper.add("b", "2")]
        assert repr(keeper) == "<LeaseKeeper [2 held]>"
        assert threads() == ["chatstream-leases"]
        for lease in leases:
            lease.close()
            lease.close()
        assert repr(keeper) == "<LeaseKeeper [0 held]>"
        assert backend.held == {}
        keeper.close()


def test_it_renews_by_itself() -> None:
    backend = Tokens(lease_sec=0.03)
    keeper = LeaseKeeper(backend)
    backend.held["a"] = "1"
    lease = keeper.add("a", "1")
    assert backend.two_renewals.wait(TIMEOUT)
    lease.close()
    keeper.close()
    assert set(backend.renewed) == {"a"}


def test_what_was_taken_over_is_let_go() -> None:
    backend = Tokens()
    keeper = LeaseKeeper(backend)
    backend.held.update(a="1", b="2")
    lease = keeper.add("a", "1")
    keeper.add("b", "2")
    backend.held["a"] = "other"
    keeper.renew_all()
    keeper.renew_all()
    assert backend.renewed == ["a", "b", "b"]
    lease.save({})
    assert backend.texts == []
    keeper.close()


def test_a_back_end_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    backend = Tokens()
    keeper = LeaseKeeper(backend)
    backend.held["a"] = "1"
    lease = keeper.add("a", "1")
    backend.is_down = True
    keeper.renew_all()
    backend.is_down = False
    keeper.renew_all()
    assert backend.renewed == ["a"]
    assert "a lease could not be renewed: down" in caplog.text
    lease.save({"v": 1})
    assert backend.texts == [b'{"v":1}']
    backend.is_down = True
    lease.close()
    assert "a lease could not be released; it is tried again until the lease expires in 60 s" in caplog.text
    keeper.release_all()
    assert backend.held == {"a": "1"}
    backend.is_down = False
    assert backend.released.wait(TIMEOUT)
    assert backend.held == {}
    keeper.close()


def test_a_lease_whose_holder_got_no_answer_is_released() -> None:
    """The back end stored the token, but its answer was lost."""
    backend = Tokens()
    keeper = LeaseKeeper(backend)
    with pytest.raises(StoreUnavailable), keeper.released_on_failure("a", "1"):
        backend.held["a"] = "1"
        raise StoreUnavailable("the connection was cut")
    assert backend.released.wait(TIMEOUT)
    assert backend.held == {}
    keeper.close()


def test_a_lease_that_has_expired_needs_no_release() -> None:
    backend = Tokens(lease_sec=0.0)
    keeper = LeaseKeeper(backend)
    backend.is_down = True
    with pytest.raises(StoreUnavailable), keeper.released_on_failure("a", "1"):
        raise StoreUnavailable("down")
    wait_until_no_thread()
    assert not backend.released.is_set()
