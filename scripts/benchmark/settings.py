"""Settings: parameters that all processes of a run share."""

from __future__ import annotations

from dataclasses import dataclass

from .shape import SHAPES, Shape


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model, device and folder of a run; sent to each process as JSON."""

    shape_name: str
    dtype: str
    device: str
    threads: int | None  # worker threads of this project; None: chosen by it
    folder: str  # temporary folder of the run

    @property
    def shape(self) -> Shape:
        return SHAPES[self.shape_name]

    @property
    def model_folder(self) -> str:
        """Folder of the model's files, for contenders that load it."""
        return f"{self.folder}/model"

    @property
    def weights_file(self) -> str:
        """File of the same weights in numpy's format, in float32."""
        return f"{self.model_folder}/weights.npz"

    @property
    def store_folder(self) -> str:
        """Folder of the conversations."""
        return f"{self.folder}/conversations"
