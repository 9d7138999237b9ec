"""rinna japanese-gpt-neox-3.6b-instruction (sft, sft-v2, ppo); format from its model card."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptRinnaJapaneseGPTNeoxInst(TextPrompt):
    """Messages after "ユーザー: " and "システム: ", with "<NL>" for newlines, which the tokenizer lacks."""

    requester_name = "ユーザー"
    responder_name = "システム"
    system_format = "{system}<NL>"
    requester_format = "{requester}: {message}<NL>"
    reply_prefix = "{responder}: "
    reply_format = "{message}<NL>"
    add_special_tokens = False  # by default this tokenizer appends </s>
    replacements_when_input = (("\n", "<NL>"),)
    replacements_when_output = (("<NL>", "\n"),)


ChatPromptRinnaJpGptNeoxInstSft = ChatPromptRinnaJapaneseGPTNeoxInst  # as later ChatStream names it
