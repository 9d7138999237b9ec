"""MPT Chat (7B, 30B) of MosaicML; format (ChatML) from its model cards."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptMosaicmlMptChat(TextPrompt):
    """ChatML: messages between "<|im_start|>" and "<|im_end|>"."""

    system_text = (
        "A conversation between a user and an LLM-based AI assistant. "
        "The assistant gives helpful and honest answers."
    )
    system_format = "<|im_start|>system\n{system}<|im_end|>\n"
    requester_format = "<|im_start|>user\n{message}<|im_end|>\n"
    reply_prefix = "<|im_start|>assistant\n"
    reply_format = "{message}<|im_end|>\n"
    stop_strs = ("<|im_end|>",)
