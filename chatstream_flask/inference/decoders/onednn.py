"""Packing: the linear layers of a model laid out for oneDNN, in place, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .linear import PackedLinear, PrepackedLinear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def is_plain(module: nn.Module) -> bool:
    """A linear layer as torch makes it: no adapter, no quantised weight."""
    return (
        type(module) is nn.Linear
        and type(module.weight.data) is Tensor
        and module.weight.dtype in DTYPES
        and not is_hooked(module)
    )


def is_hooked(module: nn.Module) -> bool:
    """What calls it does more than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


@torch.no_grad()
def pack_linears(model: nn.Module) -> None:
    """All plain ones; the model's own forward goes on with them."""
    holders = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    for parent, name, module in list(_children(model)):
        if is_plain(module):
            packed(parent, name, shares=holders[id(module.weight)] > 1)


@torch.no_grad()
def packed(parent: nn.Module, name: str, *, shares: bool = False) -> PrepackedLinear:
    """In place of the linear layer `name`; what is there already if it was packed before.

    :param shares: its weight is also another module's: it stays where it is, but is laid out transposed
    """
    module = getattr(parent, name)
    if isinstance(module, PackedLinear):
        return module.whole
    bias = None if module.bias is None else module.bias.detach()
    if shares:
        module.weight.data = module.weight.data.t().contiguous().t()
        whole = PrepackedLinear(module.weight, bias)
    else:
        whole = PrepackedLinear.of(module.weight, bias)
    setattr(parent, name, PackedLinear(whole))
    return whole


@torch.no_grad()
def unpack(model: nn.Module) -> None:
    """Plain linear layers with the same weights again."""
    for parent, name, module in list(_children(model)):
        if isinstance(module, PackedLinear):
            weight, bias = module.weight, module.bias
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
            linear.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
            if bias is not None:
                linear.bias = nn.Parameter(bias)
            setattr(parent, name, linear)


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in model.modules():
        for name, module in parent.named_children():
            yield parent, name, module
