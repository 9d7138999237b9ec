"""How a conversation becomes a prompt: one class per family of models."""

from .abstract_chat_prompt import AbstractChatPrompt, PromptTTL
from .chat_content import ChatContent, RoleType
from .chat_prompt import ChatPrompt

__all__ = ["AbstractChatPrompt", "ChatContent", "ChatPrompt", "PromptTTL", "RoleType"]
