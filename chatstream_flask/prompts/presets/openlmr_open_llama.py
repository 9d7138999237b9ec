"""OpenLLaMA of OpenLM Research: base models, asked by questions and answers; form: its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptOpenlmrOpenLlama(TextPrompt):
    requester_name = "Q"
    responder_name = "A"
    requester_format = "{requester}: {message}\n"
    reply_prefix = "{responder}:"
    reply_format = " {message}\n"
    stop_strs = ("\nQ:", "\nB:", "\nC:")
