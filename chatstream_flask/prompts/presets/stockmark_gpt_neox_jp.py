"""gpt-neox-japanese-1.4b of Stockmark: a base model that continues a text, without a prompt format."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptStockmarkGptNeoxJp(TextPrompt):
    """Plain text that the model continues; each later turn starts on a new line."""

    system_format = "{system}\n"
    reply_format = "{message}\n"
    strips_replies = False
