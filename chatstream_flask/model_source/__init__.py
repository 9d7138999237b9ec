"""Model sources: what generates the tokens, a transformers model with its tokenizer or the mock."""

# Re-exported for the other rooms; without `__all__`, because these names are not public.
from .factory import load_remote as load_remote
from .factory import make_source as make_source
from .mock_source import MockSource as MockSource
from .pretrained import load_pretrained as load_pretrained
from .protocol import ModelSource as ModelSource
from .transformers_source import TransformersSource as TransformersSource
