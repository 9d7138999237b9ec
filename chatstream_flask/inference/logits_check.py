"""check_logits: compare the model's own forward pass with one over slots, on a few random tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .batched_prefill import Part, make_batched_prefill
from .decoders.packed import PackedLinear
from .kv_cache import LayerShape
from .placement import device_of
from .slot_model import Forward, SlotModel

NUM_TOKENS = 16
CHUNKS = ((0, 5), (5, 11))  # prefilled chunks; the remaining tokens are decoded one by one
SLOT = 1  # a padding row before it, an unused slot after it
MAX_LEN = 24
# Relative errors that rounding may cause; a wrong mask or position causes about 1.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 0.15}
LARGEST_TOLERANCE = 0.15
# Errors that a forward pass may raise for input that it does not support.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@torch.inference_mode()
def own_logits(model: Any) -> Tensor:
    """Return the model's own logits `[tokens, vocab]`, after the last prefilled token and each later one.

    :raises UnsupportedModel: the model cannot compute its own forward pass
    """
    try:
        logits: Tensor = model(input_ids=_ids(model)).logits[0, CHUNKS[-1][1] - 1 :].float()
    except FAULTS as error:
        raise UnsupportedModel(f"{model.config.model_type} cannot be run: {shown_error(error)}") from error
    return logits


@torch.inference_mode()
def check_logits(model: Any, forward: Forward, shapes: list[LayerShape], expected: Tensor) -> None:
    """Check that a forward pass over slots gives the model's own logits.

    :param expected: the result of `own_logits`
    :raises UnsupportedModel: the logits differ by more than rounding explains
    """
    kind = model.config.model_type
    try:
        actual = _slot_logits(model, forward, shapes).float()
    except FAULTS as error:
        raise UnsupportedModel(
            f"{kind} cannot be run with a KV cache of slots and a 4-D mask: {shown_error(error)}"
        ) from error
    difference = relative_error(expected, actual)
    if not difference <= _tolerance(model):  # written so that NaN is refused as well
        raise UnsupportedModel(
            f"{kind} gives different logits with a KV cache of slots than by itself "
            f"(relative error {difference:.2g}); its replies would be wrong"
        )


def _tolerance(model: Any) -> float:
    """Return the relative error that rounding may cause.

    Packed weights round their inputs to 8 bits, which makes the smallest difference a larger one.
    """
    is_packed = any(isinstance(module, PackedLinear) for module in model.modules())
    return LARGEST_TOLERANCE if is_packed else TOLERANCES.get(model.dtype, LARGEST_TOLERANCE)


def relative_error(expected: Tensor, actual: Tensor) -> float:
    """Return |actual - expected| / |expected|, after subtracting each row's mean.

    Adding a constant to a row of logits does not change its probabilities.
    """
    expected = expected - expected.mean(-1, keepdim=True)
    actual = actual - actual.mean(-1, keepdim=True)
    return float((actual - expected).norm() / expected.norm())


def _ids(model: Any) -> Tensor:
    vocab_size = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (1, NUM_TOKENS), generator=generator).to(device_of(model))


def shown_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _slot_logits(model: Any, forward: Forward, shapes: list[LayerShape]) -> Tensor:
    ids = _ids(model)
    slots = SlotModel(model, forward, shapes, num_slots=SLOT + 2, max_len=MAX_LEN)
    for start, stop in CHUNKS:
        last = _prefill_logits(slots, ids, start, stop)
    rows: list[Tensor] = [last]
    for position in range(CHUNKS[-1][1], NUM_TOKENS):
        token = torch.zeros(SLOT + 1, 1, dtype=torch.long, device=ids.device)
        positions, cache_positions = token.clone(), token + MAX_LEN  # padding: position 0, written to scratch
        token[SLOT], positions[SLOT], cache_positions[SLOT] = ids[0, position], position, position
        key_len = slots.key_len(position + 1)
        rows.append(slots.logits(0, token, positions, cache_positions, key_len)[SLOT, -1])
    return torch.stack(rows)


def _prefill_logits(slots: SlotModel, ids: Tensor, start: int, stop: int) -> Tensor:
    """Return logits `[vocab]` after the last token of a chunk."""
    prefill = make_batched_prefill(
        slots, max_parts=1, max_tokens=NUM_TOKENS, device=ids.device, captures=False
    )
    if prefill is not None:
        return prefill.logits([Part(SLOT, ids[0, start:stop].tolist(), start)])[0]
    positions = torch.arange(start, stop, device=ids.device)[None]
    return slots.logits(SLOT, ids[:, start:stop], positions, positions, slots.key_len(stop))[0, -1]
