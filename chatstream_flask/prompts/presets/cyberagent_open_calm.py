"""OpenCALM of CyberAgent: base models that continue a text, without a prompt format."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptCyberAgentOpenCalm(TextPrompt):
    """Plain text that the model continues; each later turn starts on a new line."""

    system_format = "{system}\n"
    reply_format = "{message}\n"
    strips_replies = False
