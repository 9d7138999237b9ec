"""Where a model computes: on devices it is moved and copied to, or where its device map has put its parts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import ConfigError

# What torch and transformers say of a device that is not there, is full, or is not for this model.
FAULTS = (AssertionError, RuntimeError, TypeError, ValueError)


def is_dispatched(model: nn.Module) -> bool:
    """Loaded with a `device_map`: accelerate's hooks take what is computed to where the next part is."""
    return hasattr(model, "_hf_hook")


def device_of(model: PreTrainedModel) -> torch.device:
    """Where its forward takes tokens and gives logits."""
    device = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    return model.device if device is None else torch.device(device)


def is_offloaded(model: nn.Module) -> bool:
    """Weights are loaded for each forward and then dropped."""
    return any(parameter.is_meta for parameter in model.parameters())


def place(model: PreTrainedModel, devices: Sequence[str]) -> list[PreTrainedModel]:
    """The model on the first device, and a copy on each other one; where it is if none are named.

    Each weight goes straight to where it is needed, so that it is nowhere twice.

    :raises ConfigError: a device is not there, or has not the memory
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
        copied = {id(weight): _sent(weight, device) for weight in chain(model.parameters(), model.buffers())}
        return copy.deepcopy(model, copied)
    except FAULTS as error:
        raise ConfigError(f"the model cannot be copied to {device}: {error}") from error


def _sent(weight: torch.Tensor, device: str) -> torch.Tensor:
    sent = weight.detach().to(device, copy=True)
    return nn.Parameter(sent, weight.requires_grad) if isinstance(weight, nn.Parameter) else sent
