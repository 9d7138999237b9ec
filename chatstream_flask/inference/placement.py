"""Where a model computes: the devices it is moved and copied to, or those of its device map."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import ConfigError

# Errors of torch and transformers for a device that does not exist, is full, or does not suit the model.
FAULTS = (AssertionError, RuntimeError, TypeError, ValueError)


def is_dispatched(model: nn.Module) -> bool:
    """Return whether the model was loaded with a `device_map`.

    Hooks of accelerate then move activations to the device of the next part.
    """
    return hasattr(model, "_hf_hook")


def device_of(model: PreTrainedModel) -> torch.device:
    """Return the device on which the model takes token ids and returns logits."""
    device = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    return model.device if device is None else torch.device(device)


def is_offloaded(model: nn.Module) -> bool:
    """Return whether weights are loaded for each forward pass and dropped after it."""
    return any(parameter.is_meta for parameter in model.parameters())


def check_built_for(devices: Sequence[str]) -> None:
    """Refuse devices that this build of torch cannot use, without touching a device.

    :raises ConfigError: torch was built without support for one
    """
    builds = {
        "cpu": True,
        "cuda": torch.backends.cuda.is_built(),  # type: ignore[no-untyped-call]
        "mps": torch.backends.mps.is_built(),
    }
    for device in devices:
        kind = device.partition(":")[0]
        if not builds[kind]:
            allowed = ", ".join(f'"{name}"' for name, is_built in builds.items() if is_built)
            raise ConfigError(
                f'device="{device}" cannot be used: this torch was built without {kind.upper()}; '
                f"it allows {allowed}"
            )


def place(model: PreTrainedModel, devices: Sequence[str]) -> list[PreTrainedModel]:
    """Move the model to the first device and copy it to the others; without devices, leave it where it is.

    Each weight is copied straight to its device, so no device holds a weight twice.

    :raises ConfigError: a device does not exist, or has not enough memory
    """
    if not devices:
        return [model]
    _move(model, devices[0])
    return [model, *(_copied(model, device) for device in devices[1:])]


def _move(model: nn.Module, device: str) -> None:
    try:
        model.to(device)
    except FAULTS as error:
        raise ConfigError(f"the model cannot be moved to {device}: {error}") from error


def _copied(model: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        memo = {
            id(weight): _weight_on(weight, device) for weight in chain(model.parameters(), model.buffers())
        }
        return copy.deepcopy(model, memo)
    except FAULTS as error:
        raise ConfigError(f"the model cannot be copied to {device}: {error}") from error


def _weight_on(weight: torch.Tensor, device: str) -> torch.Tensor:
    moved = weight.detach().to(device, copy=True)
    return nn.Parameter(moved, weight.requires_grad) if isinstance(weight, nn.Parameter) else moved
