"""Prompts: classes that turn a conversation into the text and the tokens that a model continues."""

from .abstract_chat_prompt import AbstractChatPrompt
from .chat_content import ChatContent, RoleType
from .chat_prompt import ChatPrompt
from .prompt_settings import PromptTTL
from .text_prompt import TextPrompt

__all__ = ["AbstractChatPrompt", "ChatContent", "ChatPrompt", "PromptTTL", "RoleType", "TextPrompt"]
