"""GgufFiles: a GGUF file of llama.cpp, served as it is where the compiled library can, else unpacked."""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ...config import Dtype, Weights
from ...errors import ConfigError, UnsupportedModel
from .gguf_reader import open_gguf
from .model_files import ModelFiles, errors_of
from .packed_gguf import PackedGguf

logger = logging.getLogger("chatstream_flask")

MAGIC = b"GGUF"
OLDEST_TRANSFORMERS = "5.20"  # older ones build other tokenizers
# `tokenizer.ggml.pre` of byte-level vocabularies, as llama.cpp's llama-vocab.cpp splits their text:
GPT2_SPLIT = frozenset({"gpt-2", "jais", "mpt", "olmo", "phi-2"})  # by GPT-2's pattern
DIGITS_FIRST = frozenset(  # each digit by itself, then by GPT-2's pattern
    {"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"}
)
# Vocabularies with tokens that their merges do not lead to: llama.cpp looks a whole word up first.
WHOLE_WORDS_FIRST = frozenset({"falcon3", "llama-bpe", "llama-v3", "llama3", "tekken"})
END_IDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # each ends a reply in llama.cpp
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Gemma of this many layers scales its queries in another way than the smaller ones, as in llama.cpp.
LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
SAMPLING = {  # metadata key below general.sampling -> name in a generation config
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
# What llama.cpp takes where the file does not say it: its users try files with these.
DEFAULT_SAMPLING = {"temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_patching = threading.Lock()


class GgufFiles(ModelFiles):
    """A GGUF file with its own tokenizer, chat template and end tokens."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        with errors_of(name):
            if revision is not None:
                raise ConfigError("revision is for models on the hub, not for files")
            with open(name, "rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise ConfigError("this is not a GGUF file")
            if missing := [package for package in ("gguf", "accelerate") if find_spec(package) is None]:
                names = " and ".join(missing)
                raise ConfigError(f"GGUF files need {names}: pip install 'chatstream-flask[gguf]'")
            if not known_splits():
                raise ConfigError(f"GGUF files need transformers {OLDEST_TRANSFORMERS} or newer")
            self._folder, self._file = os.path.split(os.path.abspath(name))
            self._reader = open_gguf(name)
            self._packed = PackedGguf(name, self._reader, self._field("general.architecture"))
        super().__init__(name)

    def _check_files(self) -> None:
        """Do nothing: the file was opened."""

    def _read_config(self) -> Any:
        with self._parsed_once():
            config = AutoConfig.from_pretrained(self._folder, gguf_file=self._file)
        config.dtype = self._saved_dtype()
        self._complete(config)
        if getattr(config, "rope_parameters", None):
            self._scale_rope(config)
        return config

    def _read_tokenizer(self) -> Any:
        with self._parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(self._folder, gguf_file=self._file)
        if self._field("tokenizer.ggml.model") == "gpt2":
            _split_as_llama_cpp(tokenizer.backend_tokenizer, self._field("tokenizer.ggml.pre"))
        return tokenizer

    def skeleton_of(self, dtype: Dtype, device: str, weights: Weights = Weights.AUTO) -> PreTrainedModel:
        if weights is Weights.AUTO and self._stays_packed(dtype, device):
            return self._packed.replaced(copy.deepcopy(self._skeleton))
        return super().skeleton_of(dtype, device, weights)

    def load_weights(self, dtype: Dtype, device: str, weights: Weights = Weights.AUTO) -> PreTrainedModel:
        if weights is not Weights.AUTO or not self._stays_packed(dtype, device):
            return super().load_weights(dtype, device, weights)
        with errors_of(self.name):
            model = self._packed.load(self.config)
            self._set_generation_config(model.generation_config)
        return self._finished(model)

    def _stays_packed(self, dtype: Dtype, device: str) -> bool:
        """Return whether the weights are served as they lie in the file."""
        return dtype is Dtype.AUTO and device == "cpu" and self._obstacle is None

    @cached_property
    def _obstacle(self) -> str | None:
        reason = self._packed.obstacle(self._skeleton)
        if reason is not None:
            logger.info("the weights of %s are unpacked: %s", self.name, reason)
        return reason

    def _read_weights(self, dtype: torch.dtype | None) -> PreTrainedModel:
        auto_model: Any = AutoModelForCausalLM
        with self._parsed_once():
            unpacked = auto_model.from_pretrained(
                self._folder, gguf_file=self._file, config=self.config, dtype=dtype, **_unpacked()
            )
        # A model made of the same tensors: the one that transformers made counts as quantised and can
        # neither be saved nor converted.
        model: PreTrainedModel = type(unpacked).from_pretrained(
            None, config=self.config, state_dict=unpacked.state_dict(), dtype=dtype
        )
        self._set_generation_config(model.generation_config)
        return model

    # -- the file's metadata -------------------------------------------------------------------------

    def _field(self, key: str) -> Any:
        """Return the value of a key of the metadata; None if it is not there."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    @contextmanager
    def _parsed_once(self) -> Iterator[None]:
        """Let transformers, which parses the file anew for each part of a model, use this reader.

        Each time would take seconds.
        """
        gguf: Any = import_module("gguf")
        reader_class, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
        with _patching:
            gguf.GGUFReader = lambda *args, **kwargs: self._reader
            gguf.get_tensor_name_map = lru_cache(name_map)  # made for each module of the model otherwise
            try:
                yield
            finally:
                gguf.GGUFReader, gguf.get_tensor_name_map = reader_class, name_map

    def _saved_dtype(self) -> torch.dtype:
        """Return the data type of the matrices; bfloat16 if they are quantised.

        Rounding to bfloat16 is far below the rounding of any quantised format.
        """
        from gguf import GGMLQuantizationType as Kind

        kinds = {tensor.tensor_type for tensor in self._reader.tensors if len(tensor.shape) > 1}
        if kinds <= {Kind.F32}:
            return torch.float32
        return torch.float16 if kinds <= {Kind.F16, Kind.F32} else torch.bfloat16

    def _complete(self, config: Any) -> None:
        """Add what the file says and transformers reads for some architectures only, or derives otherwise."""
        architecture = self._field("general.architecture")
        rope = getattr(config, "rope_parameters", None) or {}
        rope = rope.get("full_attention", rope)
        base, head_dim = (
            self._field(f"{architecture}.{key}") for key in ("rope.freq_base", "attention.key_length")
        )
        if base is not None and "rope_theta" in rope:
            rope["rope_theta"] = float(base)
        if (num_positions := self._field(f"{architecture}.context_length")) is not None:
            config.max_position_embeddings = int(num_positions)
        if head_dim is not None and hasattr(config, "head_dim"):
            config.head_dim = int(head_dim)
        if architecture in LAYERS_OF_27B:
            is_27b = config.num_hidden_layers == LAYERS_OF_27B[architecture]
            per_head = config.hidden_size // config.num_attention_heads
            config.query_pre_attn_scalar = per_head if is_27b else config.head_dim

    def _scale_rope(self, config: Any) -> None:
        """Add the scaling of Llama 3.1, which the file has as a tensor and transformers does not read.

        :raises UnsupportedModel: the rotary embedding is scaled in another way that would be lost
        """
        if config.rope_parameters.get("rope_type", "default") != "default":
            return
        factors = next((t.data for t in self._reader.tensors if t.name == "rope_freqs.weight"), None)
        kind = self._field(f"{self._field('general.architecture')}.rope.scaling.type")
        if factors is None and kind in (None, "none"):
            return
        if factors is not None and config.model_type == "llama":
            theta = config.rope_parameters["rope_theta"]
            config.rope_parameters = LLAMA3_ROPE | {"rope_theta": theta, "factor": float(factors.max())}
            if _are_llama3(factors, config):
                return
        raise UnsupportedModel(
            f"the file scales its rotary embedding ({kind or 'rope_freqs'}) in a way that is not supported"
        )

    def _set_generation_config(self, config: Any) -> None:
        ids = [self._field(f"tokenizer.ggml.{name}") for name in END_IDS]
        config.eos_token_id = sorted({int(token_id) for token_id in ids if token_id is not None}) or None
        config.do_sample = True  # else the settings of sampling cannot be saved
        for key, name in SAMPLING.items():
            value = self._field(f"general.sampling.{key}")
            if value is None:
                value = DEFAULT_SAMPLING.get(key)
            if value is not None:
                setattr(config, name, value)


def is_gguf(name: str) -> bool:
    """Return whether this is a file that claims to be GGUF."""
    return name.endswith(".gguf") or os.path.isfile(name)


def _unpacked() -> dict[str, Any]:
    """Return the argument that asks transformers to unpack the weights, which older versions always do."""
    import transformers

    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}


def known_splits() -> dict[str, str]:
    """Return the patterns that transformers has for `tokenizer.ggml.pre`; empty if it is too old."""
    try:
        module = import_module("transformers.integrations.gguf.gguf_tokenizer_mapping")
    except ImportError:
        return {}
    splits: dict[str, str] = getattr(module, "GGUF_PRE_TOKENIZER_SPLITS", {})
    return splits


def _split_as_llama_cpp(backend: Any, pre: str | None) -> None:
    """Give a byte-level tokenizer the pre-tokenizer that the file names.

    :raises ConfigError: neither transformers nor this module knows it
    """
    if pre in DIGITS_FIRST:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif pre in GPT2_SPLIT:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif pre not in known_splits():
        raise ConfigError(
            f"the file's tokenizer splits text in a way that is not supported (tokenizer.ggml.pre={pre!r}); "
            "load the model's Hugging Face folder instead"
        )
    if pre in WHOLE_WORDS_FIRST:
        backend.model.ignore_merges = True


def _are_llama3(factors: Any, config: Any) -> bool:
    """Return whether the config's scaling divides the rotary frequencies by these factors."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaled = LlamaRotaryEmbedding(config).inv_freq
    head_dim = config.head_dim
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, head_dim, 2) / head_dim)
    return torch.allclose(plain / scaled, torch.tensor(factors, dtype=scaled.dtype), rtol=1e-3)
