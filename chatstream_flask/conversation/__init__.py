"""Conversations between turns: records and the stores that keep them.

`SQLStore` and `RedisStore` need optional packages, so they are imported from `conversation.sql_store` and
`conversation.redis_store`.
"""

from .conversation import Conversation
from .file_store import FileStore
from .flask_session_store import FlaskSessionStore
from .memory_store import MemoryStore
from .store import ConversationStore, Lease
from .urls import make_store

__all__ = [
    "Conversation",
    "ConversationStore",
    "FileStore",
    "FlaskSessionStore",
    "Lease",
    "MemoryStore",
    "make_store",
]
