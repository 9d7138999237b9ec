"""Blueprints with the routes of a ChatStream."""

from .chat_api import API_NAMES, append_apis, create_chat_blueprint
from .operations import create_operations_blueprint

__all__ = ["API_NAMES", "append_apis", "create_chat_blueprint", "create_operations_blueprint"]
