"""torch_dtype: from the `dtype` argument to the data type in which weights are loaded."""

from __future__ import annotations

import torch

from ...config import Dtype
from ..decoders.linear import has_fast_matmul


def torch_dtype(dtype: Dtype, saved: torch.dtype | None, device: str) -> torch.dtype | None:
    """Return the data type to load weights in; None: as each was saved.

    AUTO keeps the saved one, except float16 on a processor that has no products of it: it becomes float32,
    which loses nothing and is several times faster there.

    :param saved: data type of most of the weights, if the config tells it
    :param device: where the model will be served
    """
    if dtype is not Dtype.AUTO:
        chosen: torch.dtype = getattr(torch, dtype.value)
        return chosen
    is_slow = device == "cpu" and saved == torch.float16 and not has_fast_matmul(saved)
    return torch.float32 if is_slow else saved
