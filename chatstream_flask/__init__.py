"""Streams LLM chat out of a Flask app, under load control."""

from .chat.request_handler import AbstractRequestHandler, SimpleSessionRequestHandler
from .extension import ChatStream
from .prompts import AbstractChatPrompt, ChatPrompt

__all__ = [
    "AbstractChatPrompt",
    "AbstractRequestHandler",
    "ChatPrompt",
    "ChatStream",
    "SimpleSessionRequestHandler",
]
