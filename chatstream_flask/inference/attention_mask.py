"""AttentionMask: which cache positions each token attends to, in the form that a forward pass takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel

FULL = "full_attention"
SLIDING = "sliding_attention"


def layer_windows(config: Any) -> dict[str, int | None]:
    """Return the layer kinds of a text config with their sliding window in tokens (None: no window).

    Follows transformers' `create_masks_for_generate`: kinds come from `layer_types`; a config without it but
    with a `sliding_window`, such as mistral's, has only windowed layers.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [FULL if window is None else SLIDING]
    if unknown := sorted(set(kinds) - {FULL, SLIDING}):
        raise UnsupportedModel(
            f"{config.model_type} has layers of kind {', '.join(unknown)}; "
            f"only {FULL} and {SLIDING} are supported"
        )
    if SLIDING in kinds and not isinstance(window, int):
        raise UnsupportedModel(
            f"{config.model_type} has {SLIDING} layers, but its config has no sliding_window"
        )
    return {kind: window if kind == SLIDING else None for kind in sorted(set(kinds))}


class AttentionMask:
    """Builds masks `[rows, 1, tokens, key_len]`, boolean (True: attend) or additive."""

    def __init__(self, config: Any, *, max_len: int, device: torch.device, dtype: torch.dtype) -> None:
        self._windows = layer_windows(config)
        self._key_positions = torch.arange(max_len, device=device)
        self._dtype = dtype

    def build(self, positions: Tensor, key_len: int, *, is_additive: bool) -> dict[str, Tensor]:
        """Return the mask of each layer kind for tokens at `positions` `[rows, tokens]`.

        Every token attends at least to position 0 or to itself, so no row of a softmax is empty.
        """
        keys, positions = self._key_positions[:key_len], positions[:, None, :, None]
        causal = keys <= positions
        masks = {
            kind: causal if window is None else causal & (keys > positions - window)
            for kind, window in self._windows.items()
        }
        return {kind: self._additive(mask) for kind, mask in masks.items()} if is_additive else masks

    def _additive(self, mask: Tensor) -> Tensor:
        zeros = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device)
        return zeros.masked_fill(~mask, torch.finfo(self._dtype).min)
