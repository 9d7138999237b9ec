"""Settings: what every process of a run must know."""

from __future__ import annotations

from dataclasses import dataclass

from .shape import SHAPES, Shape


@dataclass(frozen=True, kw_only=True)
class Settings:
    shape_name: str
    dtype: str
    device: str
    threads: int | None  # generation threads of this project; None: its own choice
    folder: str  # of the run, gone after it

    @property
    def shape(self) -> Shape:
        return SHAPES[self.shape_name]

    @property
    def model_folder(self) -> str:
        """The model's files, for contenders that load it."""
        return f"{self.folder}/model"

    @property
    def weights_file(self) -> str:
        """The same weights for numpy, in float32."""
        return f"{self.model_folder}/weights.npz"

    @property
    def store_folder(self) -> str:
        """The conversations."""
        return f"{self.folder}/conversations"
