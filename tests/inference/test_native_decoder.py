"""The compiled decoder against torch, for numbers of tokens that take different code paths."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from chatstream_flask.inference.batched_prefill import Part, make_batched_prefill
from chatstream_flask.inference.decoders import native as native_sources
from chatstream_flask.inference.decoders.fuse import fuse
from chatstream_flask.inference.decoders.native_decoder import NativeDecoder
from chatstream_flask.inference.decoders.native_library import is_older_than_source, native_library
from chatstream_flask.inference.kv_cache import layer_shapes
from chatstream_flask.inference.logits_check import relative_error
from chatstream_flask.inference.slot_model import Forward, SlotModel

needs_library = pytest.mark.skipif(native_library() is None, reason="no C compiler when this was installed")

MAX_LEN = 224
NUM_SLOTS = 50
VOCAB_SIZE = 203  # not a multiple of a tile
MAX_ERRORS = {
    torch.float32: 1e-4,
    torch.float16: 0.03,
    torch.bfloat16: 0.06,
}  # the cache rounds keys and values to bfloat16 as well


@cache
def make_slot_model(dtype: torch.dtype, *, use_native: bool) -> SlotModel:
    """Return a llama with biases and sizes above one panel of K; the plain one has its weights in float32."""
    sizes = {"hidden_size": 544, "intermediate_size": 1048, "vocab_size": VOCAB_SIZE}
    model = tiny_model("llama", attention_bias=True, mlp_bias=True, **sizes).to(dtype)
    return slot_model_of(model if use_native else model.float(), use_native=use_native)


def slot_model_of(model: Any, *, use_native: bool) -> SlotModel:
    fused = fuse(model, MAX_LEN, prepack=False)
    forward: Forward = fused
    if use_native:
        forward = NativeDecoder(fused)
        forward.max_tokens = sys.maxsize  # even where torch is faster for many bfloat16 tokens
    return SlotModel(model, forward, layer_shapes(model), num_slots=NUM_SLOTS, max_len=MAX_LEN)


@pytest.fixture(params=[1, 2, 3], ids="threads={}".format)
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Also more threads than cores, so that threads steal work from one that waits for a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@cache
def plain_logits(dtype: torch.dtype, rows: int, tokens: int) -> Tensor:
    return logits(make_slot_model(dtype, use_native=False), rows, tokens)


@torch.inference_mode()
def logits(slots: SlotModel, rows: int, tokens: int) -> Tensor:
    """Return the logits of `tokens` tokens in each row, behind a prompt of five."""
    before = 5
    ids = torch.randint(VOCAB_SIZE, (rows, before + tokens), generator=torch.Generator().manual_seed(2))
    positions = torch.arange(before + tokens).expand(rows, -1)
    first, rest = positions[:, :before], positions[:, before:]
    slots.logits(0, ids[:, :before], first, first, slots.key_len(before))
    return slots.logits(0, ids[:, before:], rest, rest, slots.key_len(before + tokens)).float().flatten(0, 1)


@needs_library
@pytest.mark.parametrize("dtype", MAX_ERRORS, ids=str)
def test_any_number_of_tokens_gives_the_logits_of_plain_products(
    dtype: torch.dtype, num_threads: int
) -> None:
    native = make_slot_model(dtype, use_native=True)
    decoded = [(rows, 1) for rows in (1, 4, 5, 8, 9, 16, 18, 19, 23, 33, 50)]
    for rows, tokens in [*decoded, (1, 7), (1, 30), (2, 11), (3, 43), (48, 8), (1, 128), (1, 129), (1, 200)]:
        error = relative_error(plain_logits(dtype, rows, tokens), logits(native, rows, tokens))
        assert error < MAX_ERRORS[dtype], f"{rows} rows of {tokens} tokens: {error:.2g}"


@needs_library
@pytest.mark.parametrize("dtype", MAX_ERRORS, ids=str)
def test_a_row_has_the_same_logits_to_the_last_bit_whatever_rows_are_beside_it(dtype: torch.dtype) -> None:
    native = make_slot_model(dtype, use_native=True)
    together = logits(native, NUM_SLOTS, 1)
    for rows in range(1, 41):
        assert torch.equal(logits(native, rows, 1), together[:rows]), f"{rows} rows"


@needs_library
@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "mistral"])
def test_windows_and_softcaps_for_few_queries_and_for_many(kind: str) -> None:
    model = tiny_model(kind, vocab_size=VOCAB_SIZE)
    plain, native = slot_model_of(model, use_native=False), slot_model_of(model, use_native=True)
    for rows, tokens in ((3, 1), (1, 4), (1, 12), (1, 40), (2, 90)):
        error = relative_error(logits(plain, rows, tokens), logits(native, rows, tokens))
        assert error < MAX_ERRORS[torch.float32], f"{rows} rows of {tokens} tokens: {error:.2g}"


@needs_library
@pytest.mark.parametrize("dtype", MAX_ERRORS, ids=str)
@torch.inference_mode()
def test_parts_of_several_slots_give_what_each_gives_alone(dtype: torch.dtype, num_threads: int) -> None:
    """First chunks, later chunks and single tokens, some of them consecutive in one slot."""
    native, plain = make_slot_model(dtype, use_native=True), make_slot_model(dtype, use_native=False)
    prefill = make_batched_prefill(
        native, max_parts=9, max_tokens=99, device=torch.device("cpu"), captures=False
    )
    assert prefill is not None
    ids = torch.randint(VOCAB_SIZE, (6, 60), generator=torch.Generator().manual_seed(3)).tolist()

    def part(slot: int, start: int, stop: int) -> Part:
        return Part(slot, ids[slot][start:stop], start)

    for parts in (
        [part(4, 0, 19), part(0, 0, 1), part(2, 0, 33)],
        [part(2, 33, 34), part(2, 34, 35), part(2, 35, 36), part(0, 1, 25), part(4, 19, 20)],
        [part(0, 25, 26), part(2, 36, 37), part(4, 20, 21)],
    ):
        expected = [logits_alone(plain, it) for it in parts]
        error = relative_error(torch.cat(expected), prefill.logits(parts).float())
        assert error < MAX_ERRORS[dtype], f"{[len(it.token_ids) for it in parts]} tokens: {error:.2g}"


def logits_alone(slots: SlotModel, part: Part) -> Tensor:
    stop = part.start + len(part.token_ids)
    positions = torch.arange(part.start, stop)[None]
    return slots.logits(part.slot, torch.tensor([part.token_ids]), positions, positions, slots.key_len(stop))[
        :, 0
    ]


def test_a_change_of_any_header_rebuilds_the_library() -> None:
    folder = Path(native_sources.__file__).parent
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    depends = project.partition("depends = [")[2].partition("]")[0]
    listed = {line.strip(' ",').rpartition("/")[2] for line in depends.splitlines() if line.strip()}
    assert listed == {header.name for header in folder.glob("*.h")}


def test_a_library_that_is_older_than_its_interface_is_not_used(tmp_path: Path) -> None:
    library, source = tmp_path / "_decoder.so", tmp_path / "interface.h"
    library.touch()
    assert not is_older_than_source(library)  # an installed wheel
    source.touch()
    for age_sec, is_older in ((-5, False), (5, True)):
        os.utime(source, (library.stat().st_mtime + age_sec,) * 2)
        assert is_older_than_source(library) == is_older
