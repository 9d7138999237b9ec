"""With this folder on PYTHONPATH, Python finds none of the packages that only a local model needs."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

MODEL_PACKAGES = {"numpy", "safetensors", "tokenizers", "torch", "transformers"}


class NotInstalled:
    """An entry of sys.meta_path that comes before the real ones."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] in MODEL_PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, NotInstalled)
