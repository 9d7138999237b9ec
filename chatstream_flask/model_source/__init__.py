"""Model sources: what generates the tokens, a transformers model with its tokenizer or the mock."""

from .factory import make_source
from .mock_source import MockSource
from .protocol import ModelSource
from .transformers_source import TransformersSource

__all__ = ["MockSource", "ModelSource", "TransformersSource", "make_source"]
