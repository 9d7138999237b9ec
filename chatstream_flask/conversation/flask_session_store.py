"""Store that keeps conversations in the back end of Flask-Session, under keys of their own.

A conversation inside the session would be lost: Flask saves the session before a streamed response body
starts, and Flask-Session overwrites the whole session after every request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from flask_session.base import ServerSideSessionInterface

from ..errors import InvalidRecord, StoreUnavailable
from .local_leases import LocalLease, LocalLeases
from .store import Lease

KEY_PREFIX = "chatstream:conversation:"  # differs from the sessions' prefix, so no cookie can select it

UNAVAILABLE = "conversations cannot be read or written at the moment"

Result = TypeVar("Result")


class FlaskSessionStore:
    """Conversation store on the app's Flask-Session back end, which is not a `FileSessionInterface`.

    It calls four private methods of Flask-Session, which are the same in versions 0.6 to 0.8.
    """

    def __init__(self, app: Flask, interface: ServerSideSessionInterface) -> None:
        self._app = app
        self._interface = interface
        self._leases = LocalLeases(self)

    def __repr__(self) -> str:
        return f"<FlaskSessionStore on {type(self._interface).__name__} {self._leases!r}>"

    @property
    def ttl_sec(self) -> float:
        """Seconds after its last turn for which a conversation is kept."""
        return self._app.permanent_session_lifetime.total_seconds()

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        data = self._call(lambda key: self._interface._retrieve_session_data(key), conversation_id)
        if not data:
            return None
        record = data.get("chat_prompt") if isinstance(data, dict) else data
        if not isinstance(record, dict):
            raise InvalidRecord(f"a stored conversation is damaged: a {type(record).__name__}, not a dict")
        return record

    def hold(self, conversation_id: str) -> Lease:
        """Return a lease, which only excludes others in this process: the back ends have no locks."""
        return self._leases.hold(conversation_id)

    def delete(self, conversation_id: str) -> None:
        self._leases.revoke(conversation_id)
        self._call(lambda key: self._interface._delete_session(key), conversation_id)

    def purge(self) -> int:
        """Return 0: the back end itself deletes what has expired.

        In SQL, Flask-Session does so when it is told to, and says not how much that was.
        """
        if not self._interface.ttl:
            self._translated(self._interface._delete_expired_sessions)
        return 0

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        return self.load(lease.conversation_id)

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        conversation_id = lease.conversation_id
        session = self._interface.session_class({"chat_prompt": record}, sid=conversation_id)
        lifetime = self._app.permanent_session_lifetime
        self._call(lambda key: self._interface._upsert_session(lifetime, session, key), conversation_id)

    def _call(self, method: Callable[[str], Result], conversation_id: str) -> Result:
        return self._translated(lambda: method(KEY_PREFIX + conversation_id))

    def _translated(self, method: Callable[[], Result]) -> Result:
        """Call `method` in an app context of its own; its errors become StoreUnavailable.

        In the request's context, the SQLAlchemy back end would commit the app's database session.
        """
        try:
            with self._app.app_context():
                return method()
        except Exception as error:
            raise StoreUnavailable(UNAVAILABLE) from error
