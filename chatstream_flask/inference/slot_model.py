"""SlotModel: a model's forward pass over the slots of a KV cache, with tokens at any position of each."""

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
    """A forward pass over rows of consecutive slots; writes keys and values where `cache.select` said."""

    @property
    def is_padded(self) -> bool:
        """Whether each row reads as many keys as the longest row; False: only its own."""

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Return logits `[rows, num_last, vocab]` of each row's last tokens.

        :param ids: `[rows, tokens]`, like `positions`
        """


class TokenBatch(NamedTuple):
    """Tokens of several sequences, as tensors on the device."""

    ids: Tensor  # [tokens], like the next three
    positions: Tensor
    rows: Tensor  # slots
    cache_positions: Tensor
    tiles: Tensor | None  # [2, tiles]: first token and number of tokens of each tile, all of one slot
    logits_indices: Tensor  # [sequences]: the tokens whose logits are returned

    @classmethod
    def of_rows(cls, ids: Tensor, positions: Tensor, cache: SlotCache, num_last: int) -> TokenBatch:
        """Return the batch of the selected slots' rows, with the logits of the last tokens of each row.

        :param ids: `[rows, tokens]`, like `positions`
        """
        rows, cache_positions = cache.write_index
        indices = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        return cls(
            ids=ids.flatten(),
            positions=positions.flatten(),
            rows=rows + cache.first_slot,
            cache_positions=cache_positions.contiguous(),
            tiles=None,
            logits_indices=indices[:, ids.shape[1] - num_last :].flatten(),
        )


@runtime_checkable
class BatchForward(Forward, Protocol):
    """A forward pass that also takes tokens of any slots together."""

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of `forward_batch`."""

    @property
    def tile_tokens(self) -> int | None:
        """Maximum number of tokens of a tile; None: it needs neither tiles nor padding."""

    def forward_batch(self, batch: TokenBatch, cache: SlotCache) -> Tensor:
        """Return logits `[sequences, vocab]` of the tokens at `logits_indices`."""


class OwnForward:
    """The model's own forward pass, through transformers' public interface.

    An offloaded model computes one call at a time, because its weights are loaded for each call.
    """

    is_padded = True

    def __init__(self, model: PreTrainedModel) -> None:
        self._adds_masks = model.config.get_text_config()._attn_implementation == "eager"
        self._model = model
        self._lock = threading.Lock() if is_offloaded(model) else nullcontext()

    def __repr__(self) -> str:
        return f"<OwnForward {type(self._model).__name__}>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        masks = mask.build(positions, cache.key_len, is_additive=self._adds_masks)
        with self._lock:
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
    """A forward pass with its KV cache.

    `max_len` is the maximum length of a sequence, and also the scratch position of the cache.
    """

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
        """Return the padded number of cache positions to read for sequences of up to `num_tokens` tokens."""
        return min(padded_key_len(num_tokens), self.max_len)

    def logits(
        self,
        first_slot: int,
        ids: Tensor,
        positions: Tensor,
        cache_positions: Tensor,
        key_len: int,
        num_last: int = 1,
    ) -> Tensor:
        """Compute rows of tokens and return logits `[rows, num_last, vocab]` of the last ones of each row.

        :param first_slot: the slot of row 0; row i is slot `first_slot + i`
        :param ids: `[rows, tokens]`, like `positions` and `cache_positions`
        :param cache_positions: where each token's keys and values are written
        :param key_len: how many cache positions are read
        """
        self.cache.select(first_slot, cache_positions, key_len)
        return self.forward(ids, positions, self._mask, self.cache, num_last)
