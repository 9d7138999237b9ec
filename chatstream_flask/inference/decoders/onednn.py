"""Replace the linear layers of a model by prepacked ones for oneDNN, in place, and restore them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .linear import PrepackedLinear, PrepackedModule

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is torch's own linear layer, without an adapter or a quantized weight."""
    return (
        type(module) is nn.Linear
        and type(module.weight.data) is Tensor
        and module.weight.dtype in DTYPES
        and not is_hooked(module)
    )


def is_hooked(module: nn.Module) -> bool:
    """Return whether calling the module does more than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


@torch.no_grad()
def prepack_linears(model: nn.Module) -> None:
    """Prepack all plain linear layers; the model's own forward pass uses them."""
    holders = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    for parent, name, module in list(_children(model)):
        if is_plain(module):
            prepack(parent, name, is_shared=holders[id(module.weight)] > 1)


@torch.no_grad()
def prepack(parent: nn.Module, name: str, *, is_shared: bool = False) -> PrepackedLinear:
    """Prepack the linear layer `name`, unless it is already, and return it.

    :param is_shared: another module has the same weight: it stays dense, but is laid out transposed
    """
    module = getattr(parent, name)
    if isinstance(module, PrepackedModule):
        return module.whole
    bias = None if module.bias is None else module.bias.detach()
    if is_shared:
        module.weight.data = module.weight.data.t().contiguous().t()
        whole = PrepackedLinear(module.weight, bias)
    else:
        whole = PrepackedLinear.of(module.weight, bias)
    setattr(parent, name, PrepackedModule(whole))
    return whole


@torch.no_grad()
def restore_linears(model: nn.Module) -> None:
    """Replace prepacked modules by plain linear layers with the same weights."""
    for parent, name, module in list(_children(model)):
        if isinstance(module, PrepackedModule):
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
