"""RedPajama-INCITE-Chat (3B, 7B) of Together; format from its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptTogetherRedPajamaINCITEChat(TextPrompt):
    """Messages after "<human>: " and "<bot>:", on lines of their own."""

    requester_name = "<human>"
    responder_name = "<bot>"
    requester_format = "{requester}: {message}\n"
    reply_prefix = "{responder}:"
    reply_format = " {message}\n"
    stop_strs = ("<|endoftext|>",)
    stops_at_requester = True
