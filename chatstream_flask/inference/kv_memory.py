"""Check that the KV cache fits into the free memory, before it is allocated."""

from __future__ import annotations

import logging

import psutil
import torch

from ..errors import ConfigError
from .kv_cache import LayerShape, SlotCache

logger = logging.getLogger("chatstream_flask")
MIB = 1024 * 1024


def check_kv_memory(shapes: list[LayerShape], *, num_slots: int, max_len: int) -> None:
    """Check each device that holds layers.

    :raises ConfigError: with the numbers, and the parameters to change
    """
    for device in dict.fromkeys(shape.device for shape in shapes):
        _check_device(device, [shape for shape in shapes if shape.device == device], num_slots, max_len)


def _check_device(device: torch.device, shapes: list[LayerShape], num_slots: int, max_len: int) -> None:
    needed, free = SlotCache.num_bytes(shapes, num_slots, max_len), free_bytes(device)
    size = f"{needed / MIB:.1f} MiB for {num_slots} slots x {max_len} tokens x {len(shapes)} layers"
    if needed > free:
        raise ConfigError(
            f"the KV cache of one worker thread needs {size}, but only {free / MIB:.1f} MiB are free on "
            f"{device}; lower context_len (now {max_len}) or num_of_concurrent_executions, "
            "or use a smaller model or dtype"
        )
    logger.info("KV cache: %s on %s, %.1f MiB free before", size, device, free / MIB)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device, including what torch has reserved there but does not use."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)  # type: ignore[no-untyped-call]
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + unused
