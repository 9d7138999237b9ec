"""A program that serves a model spread over two simulated devices.

Fake tensors hold no numbers, but each has a device, and an operation on two devices fails as on real ones.
This shows where weights, keys and values, masks, tokens and logits are.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.big_modeling import dispatch_model
from tiny_models import tiny_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from chatstream_flask.inference.kv_cache import LayerShape
from chatstream_flask.inference.placement import device_of
from chatstream_flask.inference.slot_model import OwnForward, SlotModel

MAX_LEN = 32


class IndicesToo(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks the devices of index tensors, which fake tensors do not."""

    num_checked = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index_put_.default:
            tensor, indices, values = args[:3]
            assert {index.device for index in indices} == {values.device} == {tensor.device}
            self.num_checked += 1
        return func(*args, **(kwargs or {}))


def spread(model: Any, second: tuple[str, ...]) -> None:
    """Place the parts whose names start with one of `second` on the second device, others on the first."""
    for name, module in model.named_modules():
        device = torch.device("pretended", int(name.startswith(second)))
        if hook := getattr(module, "_hf_hook", None):
            hook.execution_device = device
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    tensors[key] = fake_like(tensor, device)


def fake_like(tensor: Tensor, device: torch.device) -> Tensor:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake


def main() -> None:
    _setup_privateuseone_for_python_backend("pretended")
    first, second = torch.device("pretended", 0), torch.device("pretended", 1)
    model = tiny_model("gemma3_text")  # has two kinds of masks
    skipped = model._skip_keys_device_placement
    model = dispatch_model(model, {"": "cpu"}, force_hooks=True, skip_keys=skipped)
    sizes = {"key_heads": 2, "value_heads": 2, "key_dim": 24, "value_dim": 24}
    indices = IndicesToo()  # type: ignore[no-untyped-call]
    with FakeTensorMode(), indices, torch.no_grad():
        spread(model, ("model.layers.1", "model.norm", "lm_head"))
        assert device_of(model) == first and model.lm_head.weight.device == second
        shapes = [LayerShape(**sizes, dtype=torch.float32, device=device) for device in (first, second)]
        slots = SlotModel(model, OwnForward(model), shapes, num_slots=3, max_len=MAX_LEN)
        for start, stop in ((0, 5), (5, 6)):
            positions = torch.arange(start, stop, device=first)[None]
            ids = torch.zeros_like(positions)
            logits = slots.logits(1, ids, positions, positions, slots.key_len(stop))
            assert logits.device == first
    assert [layer.keys.device for layer in slots.cache.slot_layers] == [first, second]
    assert indices.num_checked == 8  # keys and values of two layers, in two forward passes


if __name__ == "__main__":
    main()
