"""OpenLLaMA of OpenLM Research: base models, prompted as Q and A; format from its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptOpenlmrOpenLlama(TextPrompt):
    """Messages after "Q: " and "A:" on lines of their own."""

    requester_name = "Q"
    responder_name = "A"
    requester_format = "{requester}: {message}\n"
    reply_prefix = "{responder}:"
    reply_format = " {message}\n"
    stop_strs = ("\nQ:", "\nB:", "\nC:")
