"""Load a model and its tokenizer from a folder, a file or the hub."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ...config import Dtype, Weights


class LoadedModel(NamedTuple):
    """A model, its tokenizer, and the device to serve it on."""

    model: Any
    tokenizer: Any
    device: str


def load_model(
    name: str,
    device: str | None,
    dtype: str = "auto",
    revision: str | None = None,
    weights: str = "auto",
) -> LoadedModel:
    """Load a model.

    :param name: see `find_model_files`
    :param device: None: the best device of this machine (CUDA, MPS, CPU)
    :param dtype: "auto", "float32", "bfloat16" or "float16"
    :param revision: branch, tag or commit on the hub
    :param weights: "auto", or "int8" or "int4" to round matrices, on CPU
    :raises ConfigError: it cannot be loaded
    :raises UnsupportedModel: it cannot be served
    """
    chosen, rounding, device = Dtype(dtype), Weights(weights), device or best_device()
    files = find_model_files(name, revision)
    files.check_weights()
    tokenizer = files.load_tokenizer()
    return LoadedModel(files.load_weights(chosen, device, rounding), tokenizer, device)


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model."""
    return find_model_files(name).load_tokenizer()


def find_model_files(name: str | os.PathLike[str], revision: str | None = None) -> Any:
    """Return the `ModelFiles` of a model, which has been checked as far as its config tells.

    :param name: a folder or an id on the hub, of a model or of an adapter saved by peft; a GGUF file; or a
        name of `PACKAGED_MODELS`
    :param revision: branch, tag or commit on the hub
    :raises ConfigError: there is no such model
    :raises UnsupportedModel: it cannot be served
    """
    name = os.fspath(name)
    from .adapter_files import AdapterFiles, is_adapter
    from .gguf_files import GgufFiles, is_gguf
    from .model_files import ModelFiles
    from .packaged_model import PACKAGED_MODELS

    if name in PACKAGED_MODELS and not os.path.exists(name):
        files = ModelFiles(str(PACKAGED_MODELS[name].folder()))
        files.name = name
        return files
    if is_gguf(name):
        return GgufFiles(name, revision)
    return AdapterFiles(name, revision) if is_adapter(name, revision) else ModelFiles(name, revision)


def best_device() -> str:
    """Return the fastest kind of device of this machine."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
