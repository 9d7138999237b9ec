"""Llama 2 Chat of Meta; format: its page of prompt formats, and `chat_completion` in its code."""

from __future__ import annotations

from ..text_prompt import TextPrompt


class ChatPromptMetaLlamaLlama2Chat(TextPrompt):
    system_format = "<<SYS>>\n{system}\n<</SYS>>\n\n"
    requester_format = "<s>[INST] {system}{message} [/INST]"
    reply_format = " {message} </s>"
    add_special_tokens = False  # <s> is written here
