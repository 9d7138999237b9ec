"""Export of a conversation as JSON or Markdown."""

from __future__ import annotations

from typing import Any

from .abstract_chat_prompt import AbstractChatPrompt

ROLE_NAMES = {True: "user", False: "assistant"}  # by is_requester


def to_messages(chat_prompt: AbstractChatPrompt) -> list[dict[str, Any]]:
    """Return the visitor's turns as dicts of JSON's types, without the initial contents."""
    return [
        {
            "role": ROLE_NAMES[content.is_requester],
            "content": content.message or "",
            "message_id": content.message_id,
            "is_interrupted": content.is_interrupted,
        }
        for content in chat_prompt.get_contents()[chat_prompt.num_initial :]
    ]


def to_markdown(chat_prompt: AbstractChatPrompt, title: str = "") -> str:
    """Return the visitor's turns as Markdown.

    Each message is a block quote, so that a heading or an unclosed code block in it cannot affect the next.
    """
    parts = [f"# {' '.join(title.split())}\n"] if title.strip() else []
    for message in to_messages(chat_prompt):
        end = " (interrupted)" if message["is_interrupted"] else ""
        lines = message["content"].splitlines() or [""]
        quotation = "\n".join(f"> {line}".rstrip() for line in lines)
        parts.append(f"**{message['role'].capitalize()}**{end}\n\n{quotation}\n")
    return "\n".join(parts)
