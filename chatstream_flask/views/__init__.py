"""Blueprints over a ChatStream."""

from .chat_api import API_NAMES, append_apis, create_chat_blueprint

__all__ = ["API_NAMES", "append_apis", "create_chat_blueprint"]
