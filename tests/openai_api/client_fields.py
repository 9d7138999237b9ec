"""Fields of requests that other servers take, as their sources list them."""

from __future__ import annotations

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"

# vLLM 0.32.0: model_fields of ChatCompletionRequest, CompletionRequest and ResponsesRequest
VLLM_BOTH = """
add_special_tokens allowed_token_ids bad_words cache_salt echo ec_transfer_params frequency_penalty
ignore_eos include_stop_str_in_output kv_transfer_params length_penalty logit_bias logprob_token_ids
logprobs max_tokens min_p min_tokens mm_payload model n presence_penalty priority prompt_logprobs
repetition_detection repetition_penalty request_id response_format return_mm_kwargs return_token_ids
return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start seed session_id
skip_special_tokens spaces_between_special_tokens stop stop_token_ids stream stream_interval stream_options
structured_outputs temperature thinking_token_budget top_k top_p truncate_prompt_tokens truncation_side
use_beam_search user vllm_xargs watermarking
"""
VLLM = {
    CHAT: VLLM_BOTH
    + """
add_generation_prompt chat_template chat_template_kwargs continue_final_message documents include_reasoning
max_completion_tokens media_io_kwargs messages mm_processor_kwargs parallel_tool_calls reasoning_effort
return_prompt_text tool_choice tools top_logprobs
""",
    TEXT: VLLM_BOTH + "prompt prompt_embeds suffix",
    RESPONSES: """
background cache_salt chat_template_kwargs ec_transfer_params enable_response_messages frequency_penalty
ignore_eos include include_reasoning include_stop_str_in_output input instructions kv_transfer_params
logit_bias max_output_tokens max_tool_calls media_io_kwargs metadata min_p mm_payload mm_processor_kwargs
model parallel_tool_calls presence_penalty previous_input_messages previous_response_id priority prompt
prompt_cache_key reasoning repetition_penalty request_id return_mm_kwargs seed service_tier session_id
skip_special_tokens stop stop_token_ids store stream structured_outputs temperature text tool_choice tools
top_k top_logprobs top_p truncation user vllm_xargs watermarking
""",
}
# SGLang 0.5.23: the same classes
SGLANG_ALL = """
bootstrap_host bootstrap_port bootstrap_room cache_salt data_parallel_rank disagg_prefill_dp_rank extra_key
frequency_penalty min_p model presence_penalty priority repetition_penalty routed_dp_rank session_id stop
stream temperature top_k top_p user
"""
SGLANG_BOTH = (
    SGLANG_ALL
    + """
custom_logit_processor custom_params ebnf ignore_eos images_config logit_bias logprobs lora_path max_tokens
min_tokens mm_processor_kwargs n no_stop_trim regex response_format return_cached_tokens_details
return_hidden_states return_routed_experts return_spec_tokens_details return_token_ids rid
routed_experts_start_len seed session_params skip_special_tokens stop_regex stop_token_ids stream_options
watermark
"""
)
SGLANG = {
    CHAT: SGLANG_BOTH
    + """
chat_template_kwargs continue_final_message input_ids max_completion_tokens max_dynamic_patch messages
min_dynamic_patch parallel_tool_calls reasoning_effort return_flat_raw_output_top_logprobs
return_flat_raw_top_logprobs_b64 return_input_ids_in_sglext return_meta_info return_output_ids_in_sglext
return_prompt_token_ids return_sampling_mask sampling_logprobs_mode separate_reasoning stream_reasoning task
thinking tool_choice tools top_logprobs use_audio_in_video video_config
""",
    TEXT: SGLANG_BOTH + "best_of custom_labels echo json_schema prompt suffix",
    RESPONSES: SGLANG_ALL
    + """
background chat_template_kwargs include input instructions max_output_tokens max_tool_calls metadata
parallel_tool_calls previous_response_id reasoning request_id service_tier store text tool_choice tools
top_logprobs truncation
""",
}
# llama.cpp at 00efb3e: what server_task::params_from_json_cmpl reads, on both routes
LLAMA_CPP = """
adaptive_decay adaptive_target backend_sampling cache_prompt chat_format chat_parser dry_allowed_length
dry_base dry_multiplier dry_penalty_last_n dry_sequence_breakers dynatemp_exponent dynatemp_range
frequency_penalty grammar grammar_lazy grammar_triggers ignore_eos json_schema logit_bias logprobs lora
max_tokens min_keep min_p mirostat mirostat_eta mirostat_tau n n_cache_reuse n_cmpl n_discard n_indent
n_keep n_predict n_probs parse_tool_calls post_sampling_probs presence_penalty preserved_tokens
reasoning_budget_arm_immediately reasoning_budget_end_tag reasoning_budget_message
reasoning_budget_start_tag reasoning_budget_tokens reasoning_format repeat_last_n repeat_penalty
response_fields return_progress return_tokens samplers seed speculative.n_max speculative.n_min
speculative.ngram_m_hits speculative.ngram_size_m speculative.ngram_size_n speculative.p_min
speculative.type stop stream stream_options t_max_predict_ms temperature thinking_forced_open
timings_per_token top_k top_n_sigma top_p typical_p xtc_probability xtc_threshold
"""
# what older versions of these servers took, and Ollama's own
OLDER = """
format guided_choice guided_decoding_backend guided_grammar guided_json guided_regex
guided_whitespace_pattern id_slot keep_alive logits_processors min_new_tokens options tfs_z think
"""


def fields_of_servers(path: str) -> set[str]:
    """Return the fields of all of them on a route."""
    others = "" if path == RESPONSES else LLAMA_CPP + OLDER
    return set(f"{VLLM[path]} {SGLANG[path]} {others}".split())
