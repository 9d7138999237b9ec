"""SlotCache: keys and values of every running sequence, one preallocated pair of tensors per layer.

transformers' own models write into it and read from it through the public `Cache` interface, unchanged.
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
    """What one layer stores per slot and position."""

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device  # of the layer

    @property
    def num_bytes(self) -> int:
        numbers = self.key_heads * self.key_dim + self.value_heads * self.value_dim
        return numbers * self.dtype.itemsize


def layer_shapes(model: PreTrainedModel) -> list[LayerShape]:
    """Read off the keys and values of one token: configs name heads and widths in too many ways."""
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
    """One layer; keys `[slots, key_heads, max_len + 1, key_dim]`, values alike.

    The last column is scratch: padding rows write there and nobody reads it.
    """

    keys: Tensor
    values: Tensor
    is_sliding = False  # a sliding window is in the mask, the layer keeps everything

    def __init__(self, shape: LayerShape, num_slots: int, max_len: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # `empty` and then `zero_` touches the memory now, so that it cannot be missing later.
        size = (num_slots, shape.key_heads, max_len + 1, shape.key_dim)
        self.keys = torch.empty(size, dtype=shape.dtype, device=shape.device).zero_()
        size = (num_slots, shape.value_heads, max_len + 1, shape.value_dim)
        self.values = torch.empty(size, dtype=shape.dtype, device=shape.device).zero_()
        self.is_initialized = True
        self.select(0, num_slots, max_len)

    def select(self, start: int, stop: int, key_len: int) -> None:
        """Prepares the views of the slots in play: all reads and writes go through them."""
        keys, values = self.keys[start:stop], self.values[start:stop]
        self._writable = keys.transpose(1, 2), values.transpose(1, 2)  # [rows, columns, heads, dim]
        keys, values = keys[:, :, :key_len], values[:, :, :key_len]
        self.readable = keys, values  # [rows, heads, key_len, dim]
        self.flat_readable = keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)  # for plain products

    def write(self, place: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> None:
        """Of tokens `[rows * tokens, heads, dim]`, at a row and a column each."""
        self._writable[0].index_put_(place, keys)
        self._writable[1].index_put_(place, values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is lazy here."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("SlotCache.update writes; it alone knows where")

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.readable[0].shape[2], 0

    def get_max_length(self) -> int:
        return int(self.keys.shape[2]) - 1


class SlotCache(Cache):
    """Keys and values of slots 0 .. num_slots-1, each at most `max_len` positions long.

    `select` says which slots and columns the next forward is about. Reads are views of a contiguous range
    of slots, never copies, so a step costs no more memory than the keys and values it attends to.
    """

    def __init__(
        self, shapes: list[LayerShape], *, num_slots: int, max_len: int, device: torch.device
    ) -> None:
        """:param device: of the columns that `select` is told; each layer is where its shape says"""
        self.slot_layers = [SlotLayer(shape, num_slots, max_len) for shape in shapes]
        super().__init__(layers=list(self.slot_layers))
        self.num_slots = num_slots
        self.max_len = max_len
        self._row_numbers = torch.arange(num_slots, device=device)[:, None]
        self._selected = (0, num_slots, max_len)
        self.place = (self._row_numbers, self._row_numbers)
        self._places = {shape.device: self.place for shape in shapes}

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
        """What the tensors will take, known before they are made."""
        return num_slots * (max_len + 1) * sum(shape.num_bytes for shape in shapes)

    def select(self, first_slot: int, columns: Tensor, key_len: int) -> None:
        """The next forward is about slots `first_slot ..`, one per row of `columns` `[rows, tokens]`.

        Each token is written to its column (`max_len` is scratch); columns 0 .. key_len-1 are read back.
        """
        num_rows = columns.shape[0]
        rows, flat = self.place = self._row_numbers[:num_rows].expand_as(columns).flatten(), columns.flatten()
        self._places = {device: (rows.to(device), flat.to(device)) for device in self._places}
        selected = (first_slot, first_slot + num_rows, key_len)
        if selected != self._selected:
            self._selected = selected
            for layer in self.slot_layers:
                layer.select(*selected)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As transformers calls it, with `[rows, heads, tokens, dim]`."""
        layer = self.slot_layers[layer_idx]
        keys, values = key_states.transpose(1, 2), value_states.transpose(1, 2)
        layer.write(self._places[layer.keys.device], keys.flatten(0, 1), values.flatten(0, 1))
        return layer.readable

    def move(self, source: int, target: int, length: int) -> None:
        for layer in self.slot_layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        for layer in self.slot_layers:
            for held in (layer.keys, layer.values):
                first = held[one, :, :length].clone()
                held[one, :, :length] = held[other, :, :length]
                held[other, :, :length] = first

    def clear(self, slot: int, start: int) -> None:
        """Columns from `start` on: a NaN in a masked one would still spoil what comes there (0 * NaN)."""
        for layer in self.slot_layers:
            layer.keys[slot, :, start:] = 0
            layer.values[slot, :, start:] = 0
