"""weblab-10b-instruction-sft of the Matsuo Lab; format from its model card (Alpaca in Japanese)."""

from __future__ import annotations

from ..prompt_settings import PromptTTL
from ..text_prompt import TextPrompt


class ChatPromptMatsuoLabJpGptNeoxInstSft(TextPrompt):
    """Japanese Alpaca format with the newest turn only, as the model was trained on single instructions."""

    requester_name = "### 指示"
    responder_name = "### 応答"
    system_text = "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"
    requester_format = "{requester}:\n{message}\n\n"
    child_format = "\n\n### 入力:\n{message}"
    reply_prefix = "{responder}:"
    reply_format = "{message}\n\n"
    stop_strs = ("\nQ:",)
    stops_at_requester = True
    ttl = PromptTTL.SINGLE_TURN
    add_special_tokens = False
