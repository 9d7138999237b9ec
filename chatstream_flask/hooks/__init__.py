"""What an app adds to replies by functions of its own."""

from .reply_context import ReplyContext

__all__ = ["ReplyContext"]
