"""AttentionMask: which cached columns each token may look at, in the form the model's forward takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel

FULL = "full_attention"
SLIDING = "sliding_attention"


def layer_windows(config: Any) -> dict[str, int | None]:
    """Layer kinds of a text config with their sliding window in tokens (None: looks at everything).

    Follows transformers' `create_masks_for_generate`: kinds from `layer_types`; a config without them but
    with a `sliding_window` (mistral) has only windowed layers.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [FULL if window is None else SLIDING]
    if unknown := sorted(set(kinds) - {FULL, SLIDING}):
        raise UnsupportedModel(
            f"{config.model_type} has layers of kind {', '.join(unknown)}; "
            f"only {FULL} and {SLIDING} layers can be served"
        )
    if SLIDING in kinds and not isinstance(window, int):
        raise UnsupportedModel(f"{config.model_type} has {SLIDING} layers, but its config no sliding_window")
    return {kind: window if kind == SLIDING else None for kind in sorted(set(kinds))}


class AttentionMask:
    """Builds masks `[rows, 1, tokens, key_len]`: booleans (True: look), or numbers to be added to scores."""

    def __init__(self, config: Any, *, max_len: int, device: torch.device, dtype: torch.dtype) -> None:
        self._windows = layer_windows(config)
        self._columns = torch.arange(max_len, device=device)
        self._dtype = dtype

    def build(self, positions: Tensor, key_len: int, *, as_numbers: bool) -> dict[str, Tensor]:
        """For tokens at `positions` `[rows, tokens]`, by layer kind.

        Every token sees at least column 0 or itself, so no row of a softmax is ever empty.
        """
        columns, positions = self._columns[:key_len], positions[:, None, :, None]
        causal = columns <= positions
        masks = {
            kind: causal if window is None else causal & (columns > positions - window)
            for kind, window in self._windows.items()
        }
        return {kind: self._numbers(mask) for kind, mask in masks.items()} if as_numbers else masks

    def _numbers(self, is_seen: Tensor) -> Tensor:
        zeros = torch.zeros(is_seen.shape, dtype=self._dtype, device=is_seen.device)
        return zeros.masked_fill(~is_seen, torch.finfo(self._dtype).min)
