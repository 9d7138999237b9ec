"""SlotCache: where tokens are written, what is read back, copies of slots, and its size."""

from __future__ import annotations

import torch
from tiny_models import tiny_model
from torch import Tensor

from chatstream_flask.inference.kv_cache import LayerShape, SlotCache, layer_shapes

CPU = torch.device("cpu")
MAX_LEN = 8
SHAPE = LayerShape(key_heads=2, key_dim=3, value_heads=2, value_dim=4, dtype=torch.float32, device=CPU)


def make_cache(num_slots: int = 3) -> SlotCache:
    return SlotCache([SHAPE], num_slots=num_slots, max_len=MAX_LEN, device=CPU)


def tokens(rows: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    return torch.rand(rows, 2, num_tokens, 3), torch.rand(rows, 2, num_tokens, 4)


def test_each_row_is_written_at_its_own_position_and_read_as_a_view() -> None:
    cache = make_cache()
    keys, values = tokens(2, 1)
    cache.select(1, torch.tensor([[4], [0]]), key_len=6)
    read_keys, read_values = cache.update(keys, values, 0)
    assert read_keys.shape == (2, 2, 6, 3) and read_values.shape == (2, 2, 6, 4)
    assert read_keys.data_ptr() == cache.slot_layers[0].keys[1].data_ptr(), "a copy"
    assert torch.equal(read_keys[0, :, 4], keys[0, :, 0]) and torch.equal(
        read_values[1, :, 0], values[1, :, 0]
    )
    assert torch.count_nonzero(read_keys) == 2 * 2 * 3


def test_the_scratch_position_is_never_read() -> None:
    cache = make_cache()
    cache.select(0, torch.full((3, 1), MAX_LEN), key_len=MAX_LEN)
    read_keys, read_values = cache.update(*tokens(3, 1), 0)
    assert read_keys.shape[2] == MAX_LEN
    assert not read_keys.any() and not read_values.any()


def test_a_chunk_fills_consecutive_positions() -> None:
    cache = make_cache()
    keys, values = tokens(1, 3)
    cache.select(2, torch.tensor([[2, 3, 4]]), key_len=5)
    read_keys, _ = cache.update(keys, values, 0)
    assert torch.equal(read_keys[:, :, 2:5], keys) and not read_keys[:, :, :2].any()


def test_copy_and_clear() -> None:
    cache = make_cache()
    keys, values = tokens(1, 4)
    cache.select(2, torch.tensor([[0, 1, 2, 3]]), key_len=4)
    cache.update(keys, values, 0)
    cache.copy(2, 0, length=3)
    assert torch.equal(cache.slot_layers[0].keys[0, :, :3], keys[0, :, :3])
    assert torch.equal(cache.slot_layers[0].values[0, :, :3], values[0, :, :3])
    assert not cache.slot_layers[0].keys[0, :, 3:].any()
    cache.clear(2, 0)
    assert not cache.slot_layers[0].keys[2].any() and not cache.slot_layers[0].values[2].any()


def test_num_bytes_is_what_the_tensors_take() -> None:
    for kind in ("gemma4_text", "deepseek_v3"):  # widths differ by layer, and between keys and values
        shapes = layer_shapes(tiny_model(kind))
        cache = SlotCache(shapes, num_slots=3, max_len=MAX_LEN, device=CPU)
        taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.slot_layers)
        assert SlotCache.num_bytes(shapes, 3, MAX_LEN) == taken
