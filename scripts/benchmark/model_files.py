"""ModelFiles: the model on disk, in transformers' and in numpy's format, for contenders that load it."""

from __future__ import annotations

import numpy as np

from .model import make_model, make_tokenizer
from .settings import Settings


class ModelFiles:
    """Writes the files, in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def write(self) -> None:
        settings, folder = self._settings, self._settings.model_folder
        model = make_model(settings.shape, settings.dtype)
        model.save_pretrained(folder)
        make_tokenizer(settings.shape.vocab_size).save_pretrained(folder)
        weights = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
        np.savez(settings.weights_file, **weights)

    def close(self) -> None: ...
