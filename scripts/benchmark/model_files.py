"""ModelFiles: the models of a run in the cache, as folders of transformers and as GGUF files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from chatstream_flask.inference.loading.packaged_model import PACKAGED_MODELS, cache_folder

from . import random_model
from .gguf_file import write_model
from .settings import Settings
from .shape import SHAPES


class ModelFiles:
    """Finds or makes the files, in a process of its own, as this needs torch."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def folder(self, name: str) -> str:
        """Return the folder of a model; make it if it is not there yet.

        :param name: "smollm2" or one of SHAPES
        :raises ValueError: there is no such model
        """
        if name in PACKAGED_MODELS:
            return str(PACKAGED_MODELS[name].folder())
        if name not in SHAPES:
            names = ", ".join([*PACKAGED_MODELS, *SHAPES])
            raise ValueError(f"{name!r} is neither a folder with a model nor one of {names}")
        device = self._settings.device

        def write(path: Path) -> None:
            random_model.write(path, SHAPES[name], "bfloat16", device)

        return str(made(cache_folder() / f"random-{name}", write))

    def gguf(self, folder: str, precision: str) -> str:
        """Return the GGUF file of a model in a folder; make it if it is not there yet."""
        path = cache_folder() / "gguf" / f"{Path(folder).name}-{precision}.gguf"
        return str(made(path, lambda file: write_model(file, Path(folder), precision)))

    def close(self) -> None: ...


def made(path: Path, write: Callable[[Path], None]) -> Path:
    """Return a path that is there as a whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent) as work:
            write(Path(work, "it"))
            os.replace(Path(work, "it"), path)
    return path
