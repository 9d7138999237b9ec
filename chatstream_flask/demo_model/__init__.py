"""Folder of the very small chat model that `scripts/train_demo_model.py` trained."""

from pathlib import Path

PATH: Path = Path(__file__).parent
