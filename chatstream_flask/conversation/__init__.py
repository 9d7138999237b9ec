"""Where conversations live between turns."""

from .conversation import Conversation
from .flask_session_store import FlaskSessionStore
from .store import ConversationStore, Lease

__all__ = ["Conversation", "ConversationStore", "FlaskSessionStore", "Lease"]
