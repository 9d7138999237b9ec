"""check_logits: the model's own forward against a forward over slots, on a few random tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .batched_prefill import Part, make_batched_prefill
from .kv_cache import LayerShape
from .placement import device_of
from .slot_model import Forward, SlotModel

NUM_TOKENS = 16
CHUNKS = ((0, 5), (5, 11))  # prefilled; the rest is decoded one by one
SLOT = 1  # between a padding row and a slot out of play
MAX_LEN = 24
# Relative error that a number format may explain; a wrong mask or position gives about 1.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 0.15}
# What a forward does with input that it was not made for.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@torch.inference_mode()
def own_logits(model: Any) -> Tensor:
    """After the last prefilled and each later token, `[tokens, vocab]`, as the model gives them by itself."""
    try:
        logits: Tensor = model(input_ids=_ids(model)).logits[0, CHUNKS[-1][1] - 1 :].float()
    except FAULTS as error:
        raise UnsupportedModel(f"{model.config.model_type} cannot be run: {shown_error(error)}") from error
    return logits


@torch.inference_mode()
def check_logits(model: Any, forward: Forward, shapes: list[LayerShape], expected: Tensor) -> None:
    """Raises UnsupportedModel if they differ from `own_logits` by more than rounding explains."""
    kind = model.config.model_type
    try:
        served = _slot_logits(model, forward, shapes).float()
    except FAULTS as error:
        raise UnsupportedModel(
            f"{kind} cannot be run with a cache of slots and a 4-D mask: {shown_error(error)}"
        ) from error
    difference = relative_error(expected, served)
    if not difference <= TOLERANCES.get(model.dtype, 0.15):  # also refuses NaN
        raise UnsupportedModel(
            f"{kind} gives other logits from a cache of slots than from its own forward "
            f"(relative error {difference:.2g}); it would be served wrongly"
        )


def relative_error(expected: Tensor, actual: Tensor) -> float:
    """|actual - expected| / |expected|, with each row's mean taken away: logits are free up to it."""
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
    rows: list[Tensor] = []
    for start, stop in CHUNKS:
        last = _prefilled(slots, ids, start, stop)
    rows.append(last)
    for position in range(CHUNKS[-1][1], NUM_TOKENS):
        token = torch.zeros(SLOT + 1, 1, dtype=torch.long, device=ids.device)
        positions, columns = token.clone(), token + MAX_LEN  # padding rows: position 0, scratch column
        token[SLOT], positions[SLOT], columns[SLOT] = ids[0, position], position, position
        rows.append(slots.logits(0, token, positions, columns, slots.key_len(position + 1))[SLOT, -1])
    return torch.stack(rows)


def _prefilled(slots: SlotModel, ids: Tensor, start: int, stop: int) -> Tensor:
    """Logits `[vocab]` of the last token."""
    packed = make_batched_prefill(
        slots, most_parts=1, most_tokens=NUM_TOKENS, device=ids.device, replays=False
    )
    if packed is not None:
        return packed.logits([Part(SLOT, ids[0, start:stop].tolist(), start)])[0]
    columns = torch.arange(start, stop, device=ids.device)[None]
    return slots.logits(SLOT, ids[:, start:stop], columns, columns, slots.key_len(stop))[0, -1]
