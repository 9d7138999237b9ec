"""AdapterFiles: an adapter saved by peft, merged into the weights of its base model."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from ...errors import ConfigError
from .model_files import ModelFiles, errors_of


class AdapterFiles(ModelFiles):
    """The folder or the hub id of an adapter, whose config names its base model."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        self._adapter = name
        self._adapter_revision = revision
        with errors_of(name):
            if find_spec("peft") is None:
                raise ConfigError(
                    "it is an adapter, which only the package peft can read: "
                    "pip install 'chatstream-flask[adapters]'"
                )
            from peft import PeftConfig

            base = PeftConfig.from_pretrained(name, revision=revision)
            if not base.base_model_name_or_path:
                raise ConfigError("the config of this adapter does not name its base model")
        super().__init__(base.base_model_name_or_path, base.revision)
        self.name = name

    def _read_tokenizer(self) -> Any:
        """Return the tokenizer that was saved with the adapter, else that of its base model."""
        if os.path.isfile(os.path.join(self._adapter, "tokenizer_config.json")):
            return AutoTokenizer.from_pretrained(self._adapter)
        return super()._read_tokenizer()

    def _find_checkpoint(self) -> None:
        """Return None, as an adapter is merged into weights that are unpacked."""

    def _read_weights(self, dtype: torch.dtype | None) -> PreTrainedModel:
        from peft import PeftModel

        base = super()._read_weights(dtype)
        merged: PreTrainedModel = PeftModel.from_pretrained(
            base, self._adapter, revision=self._adapter_revision
        ).merge_and_unload()
        return merged


def is_adapter(name: str, revision: str | None) -> bool:
    """Return whether this is an adapter without the weights of a model."""
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, "adapter_config.json")) and not os.path.isfile(
            os.path.join(name, "config.json")
        )
    try:
        return find_adapter_config_file(name, revision=revision) is not None
    except OSError:  # the hub does not answer, or there is no such model
        return False
