"""Blueprints over a ChatStream."""

from .chat_api import create_chat_blueprint

__all__ = ["create_chat_blueprint"]
