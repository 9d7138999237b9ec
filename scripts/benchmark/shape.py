"""Shape: the sizes of a Llama, and the amount of data that a decode step must read."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2}  # per element


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
        return self.num_step_weights + self.vocab_size * self.hidden_size

    def step_bytes(self, streams: int, context_len: float, dtype: str) -> float:
        """Return the least bytes that a decode step of `streams` sequences of `context_len` tokens reads."""
        keys_and_values = 2 * self.num_hidden_layers * self.key_value_size * context_len
        return BYTES[dtype] * (self.num_step_weights + streams * keys_and_values)


SHAPES = {
    "tiny": Shape(  # to try the command out
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    "small": Shape(
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
    ),
    "135m": Shape(  # SmolLM2-135M with an output layer of its own: 163 M parameters
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        rope_theta=100_000.0,
    ),
    "1b": Shape(  # Llama 3.2 1B with a smaller vocabulary and an output layer of its own: 1.17 B
        vocab_size=49_152,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500_000.0,
    ),
    "8b": Shape(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500_000.0,
    ),
}
