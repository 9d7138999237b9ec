"""Small random models with varied replies, so that a wrong KV cache changes them.

With transformers' default initialization a random model repeats one token, and any cache would pass. Width
64 and weights 14 times larger give 10 to 35 distinct ids among 40.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fakes import CharDecoder
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.detokenizer import Detokenizer
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.inference.model_runner import ModelRunner

torch.set_num_threads(1)  # a second thread does not help for products this small

VOCAB_SIZE = 200
WINDOW = 16
MAX_POSITIONS = 256

WAYS: dict[str, dict[str, Any]] = {  # ways of computing a forward pass
    "native": {"use_native": True},
    "prepacked": {"use_native": False, "prepack": True},
    "plain": {"use_native": False, "prepack": False},
    "async": {"use_native": False, "prepack": False, "async_decode": True},  # as on CUDA
}

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LLAMA_LIKE: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 96}
GEMMA_LIKE = LLAMA_LIKE | {
    "head_dim": 24,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}
EXTRAS: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "falcon": {"alibi": False},
    "gemma2": GEMMA_LIKE | {"query_pre_attn_scalar": 24},
    "gemma3_text": GEMMA_LIKE | {"query_pre_attn_scalar": 24},
    "gpt2": {},
    "gpt_bigcode": {},
    "gemma4_text": GEMMA_LIKE
    | {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "global_head_dim": 32,
        "num_kv_shared_layers": 1,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    },
    "deepseek_v3": {
        "intermediate_size": 96,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    },
    "gpt_neox": {"intermediate_size": 96},
    "gpt_oss": LLAMA_LIKE
    | {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gptj": {"rotary_dim": 8},
    "mixtral": LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "qwen3": LLAMA_LIKE | {"head_dim": 24},
    "qwen3_moe": LLAMA_LIKE
    | {
        "head_dim": 16,
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "smollm3": LLAMA_LIKE | {"no_rope_layers": [1, 0]},
}


def tiny_model(kind: str, **changes: Any) -> Any:
    """Create a float32 model of this `model_type`; `changes` override its config."""
    config = AutoConfig.for_model(kind, **(SIZES | EXTRAS.get(kind, LLAMA_LIKE) | changes))
    torch.manual_seed(1)
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(14)
    if getattr(config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # "sdpa" of older versions of transformers leaves the cap out
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


class TinyTokenizer:
    """Has only what a runner needs of a tokenizer."""

    eos_token_id: int | None = None


class IdsAsText(ModelRunner):
    """Decodes each id to the character with that code point."""

    def text_decoder(self, request: GenerationRequest) -> CharDecoder:
        return CharDecoder()


class NoText:
    def push(self, token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


def make_sequence(prompt_ids: list[int], params: SamplingParams | None = None, *, slot: int = 0) -> Sequence:
    request = GenerationRequest(prompt_ids, params or SamplingParams(temperature=0))
    return Sequence(request, slot, Detokenizer(NoText()))


def make_prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    ids: list[int] = torch.randint(1, VOCAB_SIZE, (length,), generator=generator).tolist()
    return ids


def random_logits(rows: int, vocab: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prompt that arrives at a step, and the number of tokens to generate."""

    prompt_ids: list[int]
    num_new: int
    arrives_at: int = 0
    params: SamplingParams | None = None


def make_jobs(num_jobs: int = 8) -> list[Job]:
    """Create jobs of different lengths that join and leave at different steps; most exceed WINDOW."""
    return [
        Job(prompt_ids=make_prompt(3 + 4 * i, i), num_new=(32, 17, 27, 21)[i % 4], arrives_at=3 * i)
        for i in range(num_jobs)
    ]
