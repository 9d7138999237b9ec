"""The `device` argument: the device or devices that a model computes on. Imports no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..config import shown
from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import torch

    DtypeLike: TypeAlias = "str | torch.dtype"
    Devices: TypeAlias = "str | torch.device | Sequence[str | torch.device] | None"

DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")
FULL_NAMES = {"cpu:0": "cpu", "mps:0": "mps"}  # the way torch writes them, for example in `model.device`


def checked_devices(device: Any) -> list[str]:
    """Return the names of the devices; an empty list for None, which leaves the model where it is.

    :raises ConfigError: a name is not a device, or is given twice
    """
    if device is None:
        return []
    given = device if isinstance(device, (list, tuple)) else [device]
    names = [FULL_NAMES.get(str(it), str(it)) for it in given]
    if wrong := [it for it, name in zip(given, names, strict=True) if not DEVICE.fullmatch(name)]:
        raise ConfigError(
            f'device must be "cpu", "mps", "cuda" or "cuda:N", or a list of these, not {shown(wrong[0])}'
        )
    if not names:
        raise ConfigError("device is an empty list; it must name at least one device, or be None")
    if len(names) > 1 and "cuda" in names:
        raise ConfigError('in a list, a CUDA device needs its number: "cuda:0", not "cuda"')
    if twice := [name for name in names if name != "cpu" and names.count(name) > 1]:
        raise ConfigError(
            f"device names {twice[0]} twice, but all threads of a device share one copy of the model; "
            "for more threads set num_of_generation_threads"
        )
    return names
