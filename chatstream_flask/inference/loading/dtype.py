"""torch_dtype: from the `dtype` argument to the data type in which weights are loaded."""

from __future__ import annotations

import torch

from ...config import Dtype


def torch_dtype(dtype: Dtype, saved: torch.dtype | None) -> torch.dtype | None:
    """Return the data type to load weights in; None: as each was saved.

    :param saved: data type of most of the weights, if the config tells it; AUTO keeps it
    """
    if dtype is Dtype.AUTO:
        return saved
    chosen: torch.dtype = getattr(torch, dtype.value)
    return chosen
