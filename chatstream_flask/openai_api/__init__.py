"""The OpenAI-compatible API: same engine, queue and limits as the chat, without sessions."""

from .views import create_openai_blueprint, create_server_blueprint

__all__ = ["create_openai_blueprint", "create_server_blueprint"]
