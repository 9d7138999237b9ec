"""Streams LLM chat out of a Flask app, under load control."""

from .extension import ChatStream
from .prompts import AbstractChatPrompt, ChatPrompt
from .request_handler import AbstractRequestHandler, SimpleSessionRequestHandler

__all__ = [
    "AbstractChatPrompt",
    "AbstractRequestHandler",
    "ChatPrompt",
    "ChatStream",
    "SimpleSessionRequestHandler",
]
