"""Shape: the sizes of a Llama, and the amount of data that a decode step must read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # per element


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Llama, named as in LlamaConfig."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rope_theta: float = 10_000.0
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6  # LlamaConfig's default
    tie_word_embeddings: bool = False

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """Return the shape of a model in a folder.

        :raises ValueError: it is not a Llama
        """
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        if config.get("model_type") != "llama":
            raise ValueError(
                f"{folder} has a model of type {config.get('model_type')}; only llama is possible"
            )
        sizes = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        return cls(**sizes | {"rope_theta": config["rope_parameters"]["rope_theta"]})

    @property
    def key_value_size(self) -> int:
        """Elements of one token's keys in one layer, and also of its values."""
        return self.hidden_size // self.num_attention_heads * self.num_key_value_heads

    @property
    def num_step_weights(self) -> int:
        """Parameters that a decode step reads: all except the embedding table (it reads a row per token)."""
        attention = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.key_value_size
        mlp = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size
        last = self.hidden_size + self.vocab_size * self.hidden_size
        return self.num_hidden_layers * (attention + mlp + norms) + last

    @property
    def num_parameters(self) -> int:
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.num_step_weights + embedding

    def key_value_bytes(self, num_tokens: float, dtype: str) -> float:
        """Return the size of the keys and values of this many tokens."""
        return BYTES[dtype] * 2 * self.num_hidden_layers * self.key_value_size * num_tokens

    def step_bytes(self, streams: int, context_len: float, dtype: str) -> float:
        """Return the least bytes that a decode step of `streams` sequences of `context_len` tokens reads."""
        weights = BYTES[dtype] * self.num_step_weights
        return weights + self.key_value_bytes(streams * context_len, dtype)


SHAPES = {  # of models with random weights
    "tiny": Shape(  # to try the command out
        vocab_size=8192,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    "small": Shape(  # fits into a processor's cache
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
    ),
    "1b": Shape(  # Llama 3.2 1B with a smaller vocabulary: 1.07 B
        vocab_size=49_152,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500_000.0,
        tie_word_embeddings=True,
    ),
    "8b": Shape(  # Llama 3.1 8B
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500_000.0,
    ),
}
