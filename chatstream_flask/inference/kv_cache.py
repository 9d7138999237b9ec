"""SlotCache: keys and values of all slots, in one preallocated pair of tensors per layer.

Models of transformers use it through the public `Cache` interface, without changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from .placement import device_of


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What one layer stores for each position of a slot."""

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def num_bytes(self) -> int:
        """Bytes of one position."""
        num_elements = self.key_heads * self.key_dim + self.value_heads * self.value_dim
        return num_elements * self.dtype.itemsize


def layer_shapes(model: PreTrainedModel) -> list[LayerShape]:
    """Return the shape of each layer, measured by running one token.

    Configs name the numbers of heads and their widths in too many ways to rely on.
    """
    with torch.inference_mode():
        token = torch.zeros(1, 1, dtype=torch.long, device=device_of(model))
        layers = model(input_ids=token, past_key_values=DynamicCache(), use_cache=True).past_key_values.layers
    return [
        LayerShape(
            key_heads=layer.keys.shape[1],
            key_dim=layer.keys.shape[3],
            value_heads=layer.values.shape[1],
            value_dim=layer.values.shape[3],
            dtype=layer.keys.dtype,
            device=layer.keys.device,
        )
        for layer in layers
    ]


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer: keys `[slots, key_heads, max_len + 1, key_dim]`, values alike.

    The last position is scratch: padding is written there, and it is never read.
    """

    keys: Tensor
    values: Tensor
    is_sliding = False  # the mask applies a sliding window; the layer keeps all positions

    def __init__(self, shape: LayerShape, num_slots: int, max_len: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # `zero_` touches the memory now, so that the process cannot run out of it later.
        size = (num_slots, shape.key_heads, max_len + 1, shape.key_dim)
        self.keys = torch.empty(size, dtype=shape.dtype, device=shape.device).zero_()
        size = (num_slots, shape.value_heads, max_len + 1, shape.value_dim)
        self.values = torch.empty(size, dtype=shape.dtype, device=shape.device).zero_()
        self.is_initialized = True
        self.select(0, num_slots, max_len)

    def select(self, start: int, stop: int, key_len: int) -> None:
        """Prepare the views of slots `start` to `stop - 1`: all reads and writes go through them."""
        keys, values = self.keys[start:stop], self.values[start:stop]
        self._writable = keys.transpose(1, 2), values.transpose(1, 2)  # [rows, positions, heads, dim]
        keys, values = keys[:, :, :key_len], values[:, :, :key_len]
        self.readable = keys, values  # [rows, heads, key_len, dim]
        # For plain matrix products: [rows * heads, dim, key_len], [rows * heads, key_len, dim].
        self.flat_readable = keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)

    def write(self, write_index: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> None:
        """Store the keys and values `[rows * tokens, heads, dim]` of tokens.

        :param write_index: the row and the cache position of each token
        """
        self._writable[0].index_put_(write_index, keys)
        self._writable[1].index_put_(write_index, values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the tensors exist from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("use SlotCache.update, which knows the cache positions")

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.readable[0].shape[2], 0

    def get_max_length(self) -> int:
        return int(self.keys.shape[2]) - 1


class SlotCache(Cache):
    """Keys and values of slots 0 to `num_slots - 1`, each with at most `max_len` positions.

    `select` chooses the slots and positions of the next forward pass. Reads are views of a contiguous range
    of slots, never copies, so a step reads no more memory than the keys and values it attends to.
    """

    def __init__(
        self, shapes: list[LayerShape], *, num_slots: int, max_len: int, device: torch.device
    ) -> None:
        """:param device: of the positions passed to `select`; each layer is on the device of its shape"""
        self.slot_layers = [SlotLayer(shape, num_slots, max_len) for shape in shapes]
        super().__init__(layers=list(self.slot_layers))
        self.num_slots = num_slots
        self.max_len = max_len
        self._row_numbers = torch.arange(num_slots, device=device)[:, None]
        self._selected = (0, num_slots, max_len)
        self.write_index = (self._row_numbers, self._row_numbers)  # row and position of each selected token
        self._write_indices = {shape.device: self.write_index for shape in shapes}

    @property
    def first_slot(self) -> int:
        return self._selected[0]

    @property
    def key_len(self) -> int:
        return self._selected[2]

    def __repr__(self) -> str:
        return f"<SlotCache {len(self.slot_layers)} layers, {self.num_slots} slots of {self.max_len} tokens>"

    @staticmethod
    def num_bytes(shapes: list[LayerShape], num_slots: int, max_len: int) -> int:
        """Return the size of the tensors of such a cache."""
        return num_slots * (max_len + 1) * sum(shape.num_bytes for shape in shapes)

    def select(self, first_slot: int, cache_positions: Tensor, key_len: int) -> None:
        """Choose the slots and positions of the next forward pass.

        :param first_slot: the slot of row 0; row i is slot `first_slot + i`
        :param cache_positions: `[rows, tokens]`, where each token is written; `max_len` is scratch
        :param key_len: positions 0 to `key_len - 1` are read
        """
        num_rows = cache_positions.shape[0]
        rows = self._row_numbers[:num_rows].expand_as(cache_positions).flatten()
        positions = cache_positions.flatten()
        self.write_index = rows, positions
        self._write_indices = {
            device: (rows.to(device), positions.to(device)) for device in self._write_indices
        }
        selected = (first_slot, first_slot + num_rows, key_len)
        if selected != self._selected:
            self._selected = selected
            for layer in self.slot_layers:
                layer.select(*selected)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values `[rows, heads, tokens, dim]`, and return all that can be read.

        Called by the attention layers of transformers.
        """
        layer = self.slot_layers[layer_idx]
        keys, values = key_states.transpose(1, 2), value_states.transpose(1, 2)
        layer.write(self._write_indices[layer.keys.device], keys.flatten(0, 1), values.flatten(0, 1))
        return layer.readable

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of slot `source` to slot `target`."""
        for layer in self.slot_layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for layer in self.slot_layers:
            for held in (layer.keys, layer.values):
                first = held[one, :, :length].clone()
                held[one, :, :length] = held[other, :, :length]
                held[other, :, :length] = first

    def clear(self, slot: int, start: int) -> None:
        """Zero the positions from `start` on.

        NaN would spread even from masked positions, because 0 * NaN is NaN.
        """
        for layer in self.slot_layers:
            layer.keys[slot, :, start:] = 0
            layer.values[slot, :, start:] = 0
