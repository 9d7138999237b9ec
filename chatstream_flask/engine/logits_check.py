"""check_logits: the model's own forward against the slot path, on a few random tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .kv_cache import layer_shapes
from .slot_model import SlotModel

NUM_TOKENS = 16
CHUNKS = ((0, 5), (5, 11))  # prefilled; the rest is decoded one by one
SLOT = 1  # between a padding row and a slot out of play
MAX_LEN = 24
# Relative error that a number format may explain; a wrong mask or position gives about 1.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 0.15}


@torch.inference_mode()
def check_logits(model: Any) -> None:
    """Raises UnsupportedModel if they differ by more than rounding explains."""
    kind = model.config.model_type
    generator = torch.Generator().manual_seed(0)
    vocab_size = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocab_size, (1, NUM_TOKENS), generator=generator).to(model.device)
    try:
        plain = model(input_ids=ids).logits[0, CHUNKS[-1][1] - 1 :].float()
        served = _slot_logits(model, ids).float()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedModel(
            f"{kind} cannot be run with a cache of slots and a 4-D mask: {type(error).__name__}: {error}"
        ) from error
    difference = relative_error(plain, served)
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


def _slot_logits(model: Any, ids: Tensor) -> Tensor:
    """Logits after the last prefilled and each decoded token, `[tokens, vocab]`."""
    slots = SlotModel(model, layer_shapes(model), num_slots=SLOT + 2, max_len=MAX_LEN)
    rows: list[Any] = []
    for start, stop in CHUNKS:
        columns = torch.arange(start, stop, device=ids.device)[None]
        logits = slots.logits(SLOT, ids[:, start:stop], columns, columns, slots.key_len(stop))
    rows.append(logits[0])
    for position in range(CHUNKS[-1][1], NUM_TOKENS):
        token = torch.zeros(SLOT + 1, 1, dtype=torch.long, device=ids.device)
        positions, columns = token.clone(), token + MAX_LEN  # padding rows: position 0, scratch column
        token[SLOT], positions[SLOT], columns[SLOT] = ids[0, position], position, position
        rows.append(slots.logits(0, token, positions, columns, slots.key_len(position + 1))[SLOT])
    return torch.stack(rows)
