"""Japanese StableLM Instruct (Alpha 7B v2, 3B-4E1T, Gamma 7B) of Stability AI; from its model cards."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptStabilityAiJpGptNeoxInstSft(TextPrompt):
    """Japanese Alpaca format.

    Alpha 7B v1 has no newline after "### 応答: ", according to its model card: set
    `reply_prefix = "{responder}: "`.
    """

    requester_name = "### 指示"
    responder_name = "### 応答"
    system_text = (
        "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
    )
    requester_format = "{requester}: \n{message}\n\n"
    child_format = "\n\n### 入力: \n{message}"
    reply_prefix = "{responder}: \n"
    reply_format = "{message}\n\n"
    stops_at_requester = True
    add_special_tokens = False
