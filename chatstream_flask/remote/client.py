"""The HTTP client for engines."""

from __future__ import annotations

from typing import Any

import aiohttp

CONNECT_SEC = 5.0
SILENCE_SEC = 120.0  # without a byte, before the first token as well


def client_session(key: str | None) -> Any:
    """Return a session for one event loop; each request has its own connection.

    A connection that is kept open would be closed by the engine while the loop does not run, and then the
    next request would be lost.

    :param key: API key of the engines
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SEC, sock_read=SILENCE_SEC),
        headers={"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"}),
    )
