"""A reply in plain text that another request cancels: its client must not take it for a whole one."""

from __future__ import annotations

import pytest

from .client import EVENTS, TEXT, SocketChat, Visitor, wait_until
from .server import Server

pytestmark = pytest.mark.server


def visitor_of(server: Server) -> tuple[Visitor, str]:
    """Return a visitor whose conversation has begun, and its cookie."""
    visitor = Visitor(server.port)
    with visitor.post("Hello!", accept=EVENTS) as response:
        assert response.status_code == 200
    cancel(visitor, server)
    return visitor, "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.session.cookies)


def cancel(visitor: Visitor, server: Server) -> None:
    """Clear the conversation, which cancels its running reply."""
    assert visitor.session.post(f"http://127.0.0.1:{server.port}/api/clear_context").ok
    wait_until(lambda: server.has(accepted=0))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_text_that_was_cancelled_is_cut_short(long_server: Server, version: str) -> None:
    visitor, cookie = visitor_of(long_server)
    name = f"cut{version}"
    with (
        visitor,
        SocketChat(long_server.port, accept=TEXT, name=name, cookie=cookie, version=version) as chat,
    ):
        chat.read_until(lambda chat: b"\r\n\r\n" in chat.raw and chat.raw.count(b" ") > 20)
        cancel(visitor, long_server)
        chat.read_to_end()
        assert chat.status == 200
        assert chat.was_reset if version == "1.0" else not chat.is_complete
    assert long_server.outcome(name)["message"] == "unknown_error_occurred"
    assert "Traceback" not in long_server.output


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_reply_without_text_that_was_cancelled_gets_a_status(silent_server: Server, version: str) -> None:
    visitor, cookie = visitor_of(silent_server)
    name = f"status{version}"
    with (
        visitor,
        SocketChat(silent_server.port, accept=TEXT, name=name, cookie=cookie, version=version) as chat,
    ):
        wait_until(lambda: silent_server.has(running=1))
        cancel(visitor, silent_server)
        chat.read_to_end()
        assert chat.status == 409
        assert not chat.was_reset
        assert b'"error": "cancelled"' in chat.raw
    assert silent_server.outcome(name)["message"] == "unknown_error_occurred"
