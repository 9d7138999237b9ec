"""Llama 2 Chat of Meta; format from its documentation and `chat_completion` in its code."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptMetaLlamaLlama2Chat(TextPrompt):
    """User messages between "[INST]" and "[/INST]", the system text between "<<SYS>>" and "<</SYS>>"."""

    system_format = "<<SYS>>\n{system}\n<</SYS>>\n\n"
    requester_format = "<s>[INST] {system}{message} [/INST]"
    reply_format = " {message} </s>"
    add_special_tokens = False  # the format contains <s>
