"""Dolly v2 (3B, 7B, 12B) of Databricks; format from its instruct pipeline and training prompts."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptDatabricksDolly(TextPrompt):
    """Messages below "### Instruction:" and "### Response:"."""

    requester_name = "### Instruction"
    responder_name = "### Response"
    system_text = (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
    )
    requester_format = "{requester}:\n{message}\n\n"
    child_format = "\n\nInput:\n{message}"
    reply_prefix = "{responder}:\n"
    reply_format = "{message}\n\n### End\n\n"
    stop_strs = ("### End",)
    stops_at_requester = True
