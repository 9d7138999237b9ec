"""Export of a conversation as JSON or Markdown."""

from __future__ import annotations

from typing import Any

from .abstract_chat_prompt import AbstractChatPrompt

ROLE_NAMES = {True: "user", False: "assistant"}  # by is_requester


def to_messages(chat_prompt: AbstractChatPrompt) -> list[dict[str, Any]]:
    """Return the visitor's turns as dicts of JSON's types, without the initial contents.

    Only a reply with reasoning has the field `reasoning`, and so on for `sources` and `steps`.
    """
    return [
        {
            "role": ROLE_NAMES[content.is_requester],
            "content": content.message or "",
            "message_id": content.message_id,
            "is_interrupted": content.is_interrupted,
        }
        | ({"reasoning": content.reasoning} if content.reasoning else {})
        | ({"sources": content.sources} if content.sources else {})
        | ({"steps": content.steps} if content.steps else {})
        for content in chat_prompt.get_contents()[chat_prompt.num_initial :]
    ]


def to_markdown(chat_prompt: AbstractChatPrompt, title: str = "") -> str:
    """Return the visitor's turns as Markdown.

    Each message is a block quote, so that a heading or an unclosed code block in it cannot affect the next.
    """
    parts = [f"# {' '.join(title.split())}\n"] if title.strip() else []
    for message in to_messages(chat_prompt):
        end = " (interrupted)" if message["is_interrupted"] else ""
        if reasoning := message.get("reasoning"):
            parts.append(_quoted("**Reasoning**", reasoning))
        parts.append(_quoted(f"**{message['role'].capitalize()}**{end}", message["content"]))
        if sources := message.get("sources"):
            lines = (" ".join([each["title"], each.get("url", "")]).rstrip() for each in sources)
            parts.append(_quoted("**Sources**", "\n".join(lines)))
    return "\n".join(parts)


def _quoted(heading: str, text: str) -> str:
    lines = text.splitlines() or [""]
    return "\n".join([heading, "", *(f"> {line}".rstrip() for line in lines), ""])
