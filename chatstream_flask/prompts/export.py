"""A conversation for its owner to take along."""

from __future__ import annotations

from typing import Any

from .abstract_chat_prompt import AbstractChatPrompt

ROLE_NAMES = {True: "user", False: "assistant"}  # by is_requester


def to_messages(chat_prompt: AbstractChatPrompt) -> list[dict[str, Any]]:
    """The visitor's turns as JSON's types; nothing of what the application itself set up."""
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
    """Each message is a quotation, so that no heading or open code block in it reaches the next one."""
    parts = [f"# {' '.join(title.split())}\n"] if title.strip() else []
    for message in to_messages(chat_prompt):
        end = " (interrupted)" if message["is_interrupted"] else ""
        lines = message["content"].splitlines() or [""]
        quotation = "\n".join(f"> {line}".rstrip() for line in lines)
        parts.append(f"**{message['role'].capitalize()}**{end}\n\n{quotation}\n")
    return "\n".join(parts)
