"""Where ChatPrompts live between turns."""

from .flask_session_store import FlaskSessionStore
from .lease import Lease, Leases
from .store import ConversationStore

__all__ = ["ConversationStore", "FlaskSessionStore", "Lease", "Leases"]
