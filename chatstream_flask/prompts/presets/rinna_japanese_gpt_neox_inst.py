"""rinna japanese-gpt-neox-3.6b-instruction (sft, sft-v2, ppo); format: its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptRinnaJapaneseGPTNeoxInst(TextPrompt):
    """Its tokenizer knows no newline; the model writes and reads "<NL>" instead."""

    requester_name = "ユーザー"
    responder_name = "システム"
    system_format = "{system}<NL>"
    requester_format = "{requester}: {message}<NL>"
    reply_prefix = "{responder}: "
    reply_format = "{message}<NL>"
    add_special_tokens = False  # by default this tokenizer ends the text with </s>
    replacements_when_input = (("\n", "<NL>"),)
    replacements_when_output = (("<NL>", "\n"),)


ChatPromptRinnaJpGptNeoxInstSft = ChatPromptRinnaJapaneseGPTNeoxInst  # ChatStream's later name
