"""SlotModel: a model's forward over slots, tokens at any position of each."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .attention_mask import AttentionMask
from .kv_cache import LayerShape, SlotCache
from .padding import padded_key_len
from .placement import device_of, is_offloaded


class Forward(Protocol):
    """Computes tokens, and keeps their keys and values where the cache was told to."""

    @property
    def is_padded(self) -> bool:
        """Each row of a step reads as many keys as the longest one does; else its own."""

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Logits `[rows, num_last, vocab]` of the last tokens, for ids and positions `[rows, tokens]`."""


class TokenBatch(NamedTuple):
    """Tokens of several sequences, on the device."""

    ids: Tensor  # [tokens], as the next three
    positions: Tensor
    rows: Tensor  # slots
    columns: Tensor
    tiles: Tensor | None  # [2, tiles]: the first token of each, and how many it has, all of one slot
    lasts: Tensor  # [sequences]: the last token of each

    @classmethod
    def of_rows(cls, ids: Tensor, positions: Tensor, cache: SlotCache, num_last: int) -> TokenBatch:
        """Of the slots that the cache was told of, `[rows, tokens]`; the last ones of each row are wanted."""
        of_rows, columns = cache.place
        of_tokens = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        return cls(
            ids=ids.flatten(),
            positions=positions.flatten(),
            rows=of_rows + cache.first_slot,
            columns=columns.contiguous(),
            tiles=None,
            lasts=of_tokens[:, ids.shape[1] - num_last :].flatten(),
        )


@runtime_checkable
class PackingForward(Forward, Protocol):
    """Takes tokens of any slots at once."""

    @property
    def most_tokens(self) -> int:
        """That it takes so."""

    @property
    def tile_tokens(self) -> int | None:
        """Tokens that a tile may have; None: it finds its tiles itself, and needs no padding."""

    def packed(self, tokens: TokenBatch, cache: SlotCache) -> Tensor:
        """Logits `[sequences, vocab]` of the last token of each."""


class OwnForward:
    """The model's own, through transformers' public interface; one at a time where weights come and go."""

    is_padded = True

    def __init__(self, model: PreTrainedModel) -> None:
        self._adds_masks = model.config.get_text_config()._attn_implementation == "eager"
        self._model = model
        self._turn = threading.Lock() if is_offloaded(model) else nullcontext()

    def __repr__(self) -> str:
        return f"<OwnForward {type(self._model).__name__}>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        masks = mask.build(positions, cache.key_len, as_numbers=self._adds_masks)
        with self._turn:
            output: Any = self._model(
                input_ids=ids,
                attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=num_last,
            )
        logits: Tensor = output.logits
        return logits


class SlotModel:
    """`max_len` is the longest sequence of a slot, and the number of the scratch column."""

    def __init__(
        self,
        model: PreTrainedModel,
        forward: Forward,
        shapes: list[LayerShape],
        *,
        num_slots: int,
        max_len: int,
    ) -> None:
        device = device_of(model)
        self.max_len = max_len
        self.is_padded = forward.is_padded
        self.cache = SlotCache(shapes, num_slots=num_slots, max_len=max_len, device=device)
        self.forward = forward
        self._mask = AttentionMask(
            model.config.get_text_config(),
            max_len=max_len,
            device=device,
            dtype=model.dtype,
        )

    def key_len(self, num_tokens: int) -> int:
        """Columns read for sequences of up to `num_tokens`."""
        return min(padded_key_len(num_tokens), self.max_len)

    def logits(
        self,
        first_slot: int,
        ids: Tensor,
        positions: Tensor,
        columns: Tensor,
        key_len: int,
        num_last: int = 1,
    ) -> Tensor:
        """Logits `[rows, num_last, vocab]` of the last tokens of each row; rows are slots `first_slot ..`.

        `ids`, `positions` and `columns` (where each token's keys go) are `[rows, tokens]`.
        """
        self.cache.select(first_slot, columns, key_len)
        return self.forward(ids, positions, self._mask, self.cache, num_last)
