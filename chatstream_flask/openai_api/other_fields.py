"""Fields of OpenAI's API and of other servers that are not honoured here: refused or without meaning."""

from __future__ import annotations

from typing import Any

# Fields that would change the answer, with the values that change nothing. Null changes nothing anywhere.
REFUSED: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "audio": (),
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM and SGLang
    "chat_template": (),
    "custom_logit_processor": (),
    "custom_params": (),
    "documents": ([],),
    "frequency_penalty_range": (),
    "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "lora_path": (),
    "mm_processor_kwargs": ({},),
    "no_stop_trim": (False,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "separate_reasoning": (True,),
    "stop_regex": ([], ""),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    # llama.cpp
    "dry_multiplier": (0, 0.0),
    "dynatemp_range": (0, 0.0),
    "lora": ([],),
    "mirostat": (0,),
    "n_probs": (0,),
    "parse_tool_calls": (True,),
    "reasoning_format": ("auto", "deepseek"),
    "repeat_penalty": (1, 1.0),
    "samplers": ([],),
    "tfs_z": (1, 1.0),
    "top_n_sigma": (-1, -1.0),
    "typical_p": (1, 1.0),
    "xtc_probability": (0, 0.0),
    # Ollama
    "options": ({},),
    "raw": (False,),
    "system": ("",),
    "template": ("",),
    "think": (),
}
# Fields of chat requests that would change an answer, for the route that takes no messages.
REFUSED_FOR_TEXT: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "enable_thinking": (),
    "max_completion_tokens": (),
    "messages": (),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": (),
    "thinking_token_budget": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (),
}
REFUSED_FOR_CHAT: dict[str, tuple[Any, ...]] = {
    "echo": (False,),
    "add_special_tokens": (False,),  # the chat template writes them
    "prompt": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
}
# Fields that change no answer: accounting, storage, caches, scheduling, and the size of chunks.
HARMLESS = frozenset(
    [
        "metadata",
        "prediction",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "cache_salt",
        "chat_template_content_format",
        "guided_decoding_backend",
        "kv_transfer_params",
        "priority",
        "request_id",
        "rid",
        "spaces_between_special_tokens",
        "stream_reasoning",
        "cache_prompt",
        "id_slot",
        "n_keep",
        "post_sampling_probs",
        "return_progress",
        "timings_per_token",
        "keep_alive",
    ]
)
