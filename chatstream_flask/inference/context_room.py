"""What of a model fits into memory, told from its skeleton, a model on the meta device."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..errors import ConfigError
from .kv_memory import MIB, free_bytes
from .model_check import longest_context
from .model_size import kv_bytes_per_token, weights_bytes

CACHE_SHARE = {"cuda": 0.6}  # of the memory beside the weights; a model in an app's process on CPU: a quarter
STEP = 256  # tokens to which a context is rounded down
UNKNOWN_CONTEXT = 1024  # tokens, for a model that does not tell how many positions it was trained for


def check_weights_fit(skeleton: PreTrainedModel, device: str) -> None:
    """Refuse weights for which there is not enough free memory, before they are read.

    :raises ConfigError: with the numbers
    """
    needed, free = _served_bytes(skeleton), free_bytes(torch.device(device))
    if needed > free:
        raise ConfigError(
            f"the weights need {needed / MIB:.0f} MiB, but only {free / MIB:.0f} MiB are free on {device}: "
            "use a smaller model or dtype"
        )


def context_that_fits(skeleton: PreTrainedModel, num_slots: int, device: str) -> int:
    """Return the number of tokens of prompt and reply that a model and the free memory allow.

    It may still be too little, which is refused where the KV cache is allocated.

    :param num_slots: conversations whose keys and values that device keeps
    """
    kind = torch.device(device).type
    room = CACHE_SHARE.get(kind, 0.25) * (free_bytes(torch.device(device)) - _served_bytes(skeleton))
    fitting = int(room / (num_slots * kv_bytes_per_token(skeleton)))
    longest = longest_context(skeleton.config.get_text_config()) or UNKNOWN_CONTEXT
    return longest if longest <= fitting else max(fitting // STEP, 1) * STEP


def _served_bytes(skeleton: PreTrainedModel) -> int:
    """Return the size of the weights; 0 if they are quantised, which a skeleton does not show."""
    is_quantised = getattr(skeleton.config, "quantization_config", None) is not None
    return 0 if is_quantised else weights_bytes(skeleton)
