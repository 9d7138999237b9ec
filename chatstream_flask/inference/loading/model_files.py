"""ModelFiles: a model on disk or the hub, checked as far as that needs no weights."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ...config import Dtype, Weights
from ...errors import ConfigError, UnsupportedModel
from ..decoders.fuse import FUSIBLE
from ..decoders.native_library import native_library
from ..decoders.quantise import quantise_model
from ..model_check import check_model
from .dtype import torch_dtype
from .packed_checkpoint import PackedCheckpoint

logger = logging.getLogger("chatstream_flask")

WEIGHTS = ("*.safetensors", "*.bin")
LFS_POINTER = b"version https://git-lfs"
SHORT_CONTEXT = 2  # tokens; what a model allows beyond it is not for the loader to check


class ModelFiles:
    """A Hugging Face folder or hub id.

    Everything is checked that can be checked without the weights, which may take minutes to read.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        """Read the config.

        :param name: a folder, or the id of a model on the hub; from its cache only if HF_HUB_OFFLINE is set
        :param revision: branch, tag or commit on the hub
        :raises ConfigError: there is no such model
        :raises UnsupportedModel: it cannot be served
        """
        self.name = name
        self._path = name
        self._revision = revision
        with errors_of(name):
            self._check_files()
            self.config = self._read_config()
            self._checkpoint = self._find_checkpoint()
            self._check_config()
            self._skeleton = self._make_skeleton()

    def check_weights(self) -> None:
        """Check that a folder has files of weights, and that they are what they seem.

        :raises ConfigError: with what is wrong
        """
        if os.path.isdir(self._path):
            with errors_of(self.name):
                _check_weights(Path(self._path))

    def load_tokenizer(self) -> Any:
        """Return the tokenizer."""
        with errors_of(self.name):
            return self._read_tokenizer()

    def skeleton_of(self, dtype: Dtype, device: str, weights: Weights = Weights.AUTO) -> PreTrainedModel:
        """Return the model without memory for its weights, in the data type in which it will be loaded.

        :raises ConfigError: `weights` is not supported here
        """
        model: nn.Module = self._skeleton  # as whose method `to` is typed
        model.to(self._dtype(dtype, device, weights) or torch.float32)
        if checkpoint := self._served_as_packed(dtype, device, weights):
            return checkpoint.replaced(copy.deepcopy(self._skeleton))
        if weights is Weights.AUTO:
            return self._skeleton
        _check_rounding(device)
        rounded = copy.deepcopy(self._skeleton)
        quantise_model(rounded, weights)
        return rounded

    def load_weights(self, dtype: Dtype, device: str, weights: Weights = Weights.AUTO) -> PreTrainedModel:
        """Return the model, on CPU.

        :param device: where it will be served
        :raises ConfigError: it cannot be loaded, or `weights` is not supported here
        """
        if weights is not Weights.AUTO:
            _check_rounding(device)
        chosen = self._dtype(dtype, device, weights)
        if dtype is Dtype.AUTO and chosen is not self.config.dtype:
            logger.info(
                "the float32 weights of %s are rounded to bfloat16, which is faster here: "
                "--dtype float32 keeps them",
                self.name,
            )
        with errors_of(self.name):
            if checkpoint := self._served_as_packed(dtype, device, weights):
                model = checkpoint.load(self._path, self._revision, self.config)
                return self._finished(model)
            model = self._read_weights(chosen)
            if weights is not Weights.AUTO:
                quantise_model(model, weights)
        return self._finished(model)

    def _dtype(self, dtype: Dtype, device: str, weights: Weights) -> torch.dtype | None:
        """Return the data type to load the weights in; None: as each was saved.

        By default float32 becomes bfloat16 where the compiled decoder reads the weights: the time of a reply
        is mostly that of reading them. vLLM does so too.
        """
        chosen = torch_dtype(dtype, self.config.dtype)
        is_default = dtype is Dtype.AUTO and weights is Weights.AUTO
        is_native = (
            device == "cpu"
            and native_library() is not None
            and self.config.get_text_config().model_type in FUSIBLE
            and getattr(self.config, "quantization_config", None) is None
        )
        return torch.bfloat16 if chosen is torch.float32 and is_default and is_native else chosen

    def _served_as_packed(self, dtype: Dtype, device: str, weights: Weights) -> PackedCheckpoint | None:
        """Return the checkpoint if its weights are served in the bits that they have.

        :raises ConfigError: it is unpacked by a package that is not there
        """
        if self._checkpoint is None:
            return None
        if dtype is Dtype.AUTO and weights is Weights.AUTO and device == "cpu":
            return self._checkpoint
        _check_quantizer(self.config.quantization_config)
        return None

    def _finished(self, model: PreTrainedModel) -> PreTrainedModel:
        if getattr(self.config.get_text_config(), "attn_logit_softcapping", None):
            model.set_attn_implementation("eager")  # "sdpa" of transformers below 5.21 leaves the cap out
        model.config.name_or_path = self.name
        return model

    # -- what other kinds of files do in their own way -------------------------------------------------

    def _check_files(self) -> None:
        folder = Path(self._path)
        if folder.is_dir() and not (folder / "config.json").is_file():
            gguf = ", ".join(sorted(path.name for path in folder.glob("*.gguf")))
            hint = f"; for {gguf}, give its path" if gguf else ""
            raise ConfigError(f"the folder has no config.json{hint}")

    def _read_config(self) -> Any:
        return AutoConfig.from_pretrained(self._path, revision=self._revision)

    def _read_tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self._path, revision=self._revision)

    def _find_checkpoint(self) -> PackedCheckpoint | None:
        return PackedCheckpoint.of(getattr(self.config, "quantization_config", None))

    def _read_weights(self, dtype: torch.dtype | None) -> PreTrainedModel:
        auto_model: Any = AutoModelForCausalLM
        loaded: PreTrainedModel = auto_model.from_pretrained(
            self._path, revision=self._revision, dtype=dtype or "auto"
        )
        return loaded

    # ------------------------------------------------------------------------------------------------

    def _check_config(self) -> None:
        kind = self.config.model_type
        if getattr(self.config, "is_encoder_decoder", False):
            raise UnsupportedModel(f"{kind} is an encoder-decoder; only decoder-only models are supported")
        if type(self.config) not in AutoModelForCausalLM._model_mapping:
            raise UnsupportedModel(f"{kind} is no language model that transformers can generate text with")
        quantization = getattr(self.config, "quantization_config", None)
        if quantization and self._checkpoint is None:
            _check_quantizer(quantization)

    def _make_skeleton(self) -> PreTrainedModel:
        """Return the model without memory for its weights, which has passed `check_model`."""
        auto_model: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model: PreTrainedModel = auto_model.from_config(
                self.config, dtype=self.config.dtype or torch.float32
            )
        check_model(model, SHORT_CONTEXT)
        return model


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Raise what a library raises while it reads a model as ConfigError, with the name of the model."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"the model {name} could not be loaded: {error}") from error
    except UnsupportedModel as error:
        raise UnsupportedModel(f"the model {name} could not be loaded: {error}") from error
    except Exception as error:  # transformers, tokenizers, safetensors, peft and gguf have no common error
        raise ConfigError(f"the model {name} could not be loaded: {_first_lines(error)}") from error


def _check_rounding(device: str) -> None:
    """Refuse `weights` where packed weights cannot be multiplied.

    :raises ConfigError: with the reason
    """
    if device != "cpu":
        raise ConfigError(f'weights="int8" and "int4" are for device="cpu", not for {device}')
    if native_library() is None:
        raise ConfigError(
            'weights="int8" and "int4" need the compiled decoder, which was not built when the package was '
            "installed: install it again where there is a C compiler"
        )


def _check_weights(folder: Path) -> None:
    files = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    if not files:
        raise ConfigError(f"the folder has no weights: no file {' or '.join(WEIGHTS)}")
    for path in files:
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ConfigError(f"{path.name} is a pointer of Git LFS, not the weights: run git lfs pull")


def _check_quantizer(quantization: Any) -> None:
    """Check that the packages are there which unpack quantised weights on this machine."""
    from transformers.quantizers.auto import AutoHfQuantizer

    AutoHfQuantizer.from_config(quantization, pre_quantized=True).validate_environment()


def _first_lines(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(line.strip() for line in text.strip().splitlines() if line.strip())
