"""A Llama with random weights and a tokenizer of made-up words, for sizes of which no model is at hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .shape import Shape

CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"
SPACE = "\u0120"  # as byte-level vocabularies write it


def make_model(shape: Shape, dtype: str, device: str = "cpu") -> Any:
    """Return a model with the same weights each time.

    All tokens but words after a space have rows of zeros in the output layer: a greedy reply has none of
    them, so each of its tokens can be seen, and its text becomes the same tokens again.
    """
    sizes = asdict(shape)
    rope = {"rope_type": "default", "rope_theta": sizes.pop("rope_theta")}
    config = LlamaConfig(**sizes, rope_parameters=rope, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for token_id, token in enumerate(tokens(shape.vocab_size)):
            if not (token.startswith(SPACE) and len(token) > 1):
                model.lm_head.weight[token_id] = 0
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    return model


def tokens(vocab_size: int) -> list[str]:
    """Return bytes, syllables, words of two syllables, the same after a space, and names that never occur."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    known = [*sorted(ByteLevel.alphabet()), *syllables]
    num_words = min(len(syllables) ** 2, (vocab_size - len(known)) // 2)
    words = [one + other for one in syllables for other in syllables][:num_words]
    known += words + [SPACE + word for word in words]
    return known + [f"<unused{i}>" for i in range(vocab_size - len(known))]


def make_tokenizer(vocab_size: int) -> Any:
    """Return a byte-level tokenizer that has one token for each word of two syllables.

    A consonant never follows a vowel within a pair that is merged, so a word has one way to be merged.
    """
    names = tokens(vocab_size)
    known = set(names)
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    merges = [(syllable[0], syllable[1]) for syllable in syllables]
    merges += [(one, other) for one in syllables for other in syllables if one + other in known]
    merges += [(SPACE, word) for one in syllables for other in syllables if (word := one + other) in known]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


def write(folder: Path, shape: Shape, dtype: str, device: str = "cpu") -> None:
    """Write the model and its tokenizer as a folder of transformers."""
    make_model(shape, dtype, device).save_pretrained(folder)
    make_tokenizer(shape.vocab_size).save_pretrained(folder)
