"""japanese-large-lm instruction-sft (1.7B, 3.6B) of LINE; format from its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptLineCorpJpLargeLmInstSft(TextPrompt):
    """Messages after "ユーザー: " and "システム: ", on lines of their own."""

    requester_name = "ユーザー"
    responder_name = "システム"
    requester_format = "{requester}: {message}\n"
    reply_prefix = "{responder}: "
    reply_format = "{message}\n"
    stops_at_requester = True
    add_special_tokens = False  # by default this tokenizer appends </s>
