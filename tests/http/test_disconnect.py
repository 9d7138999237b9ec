"""The probe that tells whether the client has gone."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from chatstream_flask.http.disconnect import make_probe


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_a_socket_tells(key: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        is_gone = make_probe({key: ours})
        assert is_gone is not None
        assert not is_gone()
        theirs.sendall(b"the next request of a keep-alive connection")
        assert not is_gone()
        theirs.close()
        assert is_gone()
        assert is_gone()


def test_a_tcp_client_that_resets_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        with ours:
            is_gone = make_probe({"gunicorn.socket": ours})
            assert is_gone is not None
            assert not is_gone()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            client.close()
            assert is_gone()


def test_a_socket_closed_on_our_side_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        is_gone = make_probe({"gunicorn.socket": ours})
        ours.close()
        assert is_gone is not None
        assert is_gone()


class Channel:
    """As in waitress: the question is a bound method of the channel."""

    def __init__(self, lookahead: int) -> None:
        self.adj = SimpleNamespace(channel_request_lookahead=lookahead)
        self.is_gone = False

    def check_client_disconnected(self) -> bool:
        return self.is_gone


def test_waitress_tells_with_lookahead_only() -> None:
    blind, seeing = Channel(0), Channel(1)
    assert make_probe({"waitress.client_disconnected": blind.check_client_disconnected}) is None
    is_gone = make_probe({"waitress.client_disconnected": seeing.check_client_disconnected})
    assert is_gone is not None
    assert not is_gone()
    seeing.is_gone = True
    assert is_gone()


class Wrapped:
    """A middleware's own question: a bound method too, but of no channel."""

    def ask(self) -> bool:
        return True


@pytest.mark.parametrize("ask", [lambda: True, Wrapped().ask])
def test_a_question_of_another_kind_is_asked(ask: Any) -> None:
    assert make_probe({"waitress.client_disconnected": ask}) is ask


def test_nothing_to_ask() -> None:
    assert make_probe({}) is None
    assert make_probe({"gunicorn.socket": None, "werkzeug.socket": None}) is None
