"""Settings: parameters that all processes of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .shape import Shape


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model, device and folder of a run; sent to each process as JSON."""

    model_folder: str
    dtype: str
    device: str
    threads: int | None  # worker threads of this project; None: chosen by it
    folder: str  # temporary folder of the run

    @property
    def shape(self) -> Shape:
        return Shape.of(Path(self.model_folder))

    @property
    def store_folder(self) -> str:
        """Folder of the conversations."""
        return f"{self.folder}/conversations"
