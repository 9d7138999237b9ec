"""LLM chat for Flask apps: streamed replies, conversations, and a queue that bounds the load."""

from importlib.metadata import version

from . import errors
from .chat.request_handler import AbstractRequestHandler, SimpleSessionRequestHandler
from .config import SamplingParams
from .extension import ChatStream
from .hooks import ReplyContext
from .prompts import AbstractChatPrompt, ChatPrompt

__version__ = version("chatstream-flask")

__all__ = [
    "AbstractChatPrompt",
    "AbstractRequestHandler",
    "ChatPrompt",
    "ChatStream",
    "ReplyContext",
    "SamplingParams",
    "SimpleSessionRequestHandler",
    "__version__",
    "errors",
]
