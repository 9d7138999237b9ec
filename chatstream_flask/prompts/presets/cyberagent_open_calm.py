"""OpenCALM of CyberAgent: base models, which continue a text; no format."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptCyberAgentOpenCalm(TextPrompt):
    """The visitor writes, the model goes on from there, each later turn begins on a new line."""

    system_format = "{system}\n"
    reply_format = "{message}\n"
    strips_replies = False
