"""The Triton kernels give the logits of plain torch; without CUDA they run in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from slot_loop import serve
from tiny_models import TinyTokenizer, make_jobs, make_prompt, make_sequence, tiny_model
from torch import Tensor

from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.inference.batched_prefill import Part, make_batched_prefill
from chatstream_flask.inference.decoders.fuse import NotFusible, fuse
from chatstream_flask.inference.decoders.fused_decoder import FusedDecoder
from chatstream_flask.inference.kv_cache import layer_shapes
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.slot_model import Forward, SlotModel
from chatstream_flask.inference.step_inputs import draft_logits

ops = pytest.importorskip("chatstream_flask.inference.decoders.triton_ops", reason="triton is missing")
triton_decoder = pytest.importorskip(
    "chatstream_flask.inference.decoders.triton_decoder", reason="triton is missing"
)

# numpy warns of inf and NaN in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MAX_LEN = 100
NUM_SLOTS = 3
PROMPT_LENS = [20, 5, 9]  # the window of the tiny models and the keys of the smallest tile are 16

# The interpreter takes milliseconds for each head of each token: no more of them than a test needs.
ONE_LAYER = {"num_hidden_layers": 1}
FEW_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("gemma2", {}),  # norms before and after, softcaps, windows
    ("gemma3_text", {}),  # norms of queries and keys
    ("llama", ONE_LAYER | {"attention_bias": True, "mlp_bias": True}),
    (
        "llama",
        ONE_LAYER | {"hidden_size": 96, "num_attention_heads": 6, "head_dim": 24, "hidden_act": "gelu"},
    ),
    ("mistral", ONE_LAYER | {"sliding_window": 16}),
    ("smollm3", {}),  # layers without rotary angles
]


class Step:
    """Computes prompts in three slots, then the next tokens of all of them."""

    def __init__(self, model: Any, forward: Forward) -> None:
        self.slots = SlotModel(model, forward, layer_shapes(model), num_slots=NUM_SLOTS, max_len=MAX_LEN)
        self.prefills = make_batched_prefill(
            self.slots,
            max_parts=2 * NUM_SLOTS,
            max_tokens=64,
            device=torch.device(DEVICE),
            captures=DEVICE == "cuda",
        )

    def prefill(self) -> Tensor:
        """Compute each prompt in one or two parts, and parts of two prompts in one forward pass."""
        first, second, third = (make_prompt(length, slot) for slot, length in enumerate(PROMPT_LENS))
        self._logits(Part(0, first[:9], 0), Part(2, third[:3], 0))
        ends = [
            *self._logits(Part(0, first[9:], 9), Part(1, second, 0)),
            *self._logits(Part(2, third[3:], 3)),
        ]
        return torch.stack(ends)

    def _logits(self, *parts: Part) -> Tensor:
        if self.prefills is not None:
            return self.prefills.logits(list(parts)).clone()
        return torch.cat([self._alone(part) for part in parts])

    def _alone(self, part: Part) -> Tensor:
        ids = torch.tensor([part.token_ids], device=DEVICE)
        cache_positions = part.start + torch.arange(ids.shape[1], device=DEVICE)[None]
        key_len = self.slots.key_len(part.start + ids.shape[1])
        return self.slots.logits(part.slot, ids, cache_positions, cache_positions, key_len)[:, -1]

    def decode(self, width: int) -> Tensor:
        """Decode a token and drafts of the first and the last row; the row in the middle is padding."""
        positions = torch.tensor(PROMPT_LENS, device=DEVICE)[:, None] + torch.arange(width, device=DEVICE)
        ids, cache_positions = positions % 50, positions.clone()
        ids[1], positions[1], cache_positions[1] = 0, 0, MAX_LEN
        key_len = self.slots.key_len(max(PROMPT_LENS) + width)
        return self.slots.logits(0, ids, positions, cache_positions, key_len, width)[[0, 2]]


def make_forwards(kind: str, dtype: torch.dtype, changes: dict[str, Any]) -> tuple[Any, FusedDecoder, Any]:
    model = tiny_model(kind, **changes).to(DEVICE, dtype)
    fused = fuse(model, MAX_LEN, prepack=False)
    return model, fused, triton_decoder.TritonDecoder(fused)


@pytest.mark.parametrize(("kind", "changes"), KINDS)
@torch.inference_mode()
def test_logits_are_those_of_the_plain_forward(kind: str, changes: dict[str, Any]) -> None:
    model, fused, triton = make_forwards(kind, torch.float32, changes)
    expected, actual = Step(model, fused), Step(model, triton)
    torch.testing.assert_close(actual.prefill(), expected.prefill(), rtol=1e-3, atol=1e-4)
    for num_programs, width in ((1, 3), (64, 1)):  # one program for the keys of a token, or several
        triton._max_programs = num_programs
        torch.testing.assert_close(actual.decode(width), expected.decode(width), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_drafts_of_several_rows_in_one_forward() -> None:
    model, fused, triton = make_forwards("gemma3_text", torch.float32, FEW_HEADS)
    expected, actual = Step(model, fused), Step(model, triton)
    expected.prefill()
    actual.prefill()
    rows: list[Sequence | None] = [None] * NUM_SLOTS
    for slot in (0, 2):
        length = PROMPT_LENS[slot]
        rows[slot] = it = make_sequence([0] * length, slot=slot)
        it.num_cached, it.token_ids, it.drafts = length, [0] * length + [length % 50], [(length + 1) % 50]
    assert actual.prefills is not None
    logits = draft_logits(actual.prefills, rows, 2)[[0, 2]]
    torch.testing.assert_close(logits, expected.decode(2), rtol=1e-3, atol=1e-4)


def test_replies_equal_those_of_the_plain_forward() -> None:
    model, replies = tiny_model("llama", **FEW_HEADS), []
    jobs = [replace(job, num_new=8) for job in make_jobs()[:3]]
    for use_triton in (False, True):
        prepared = PreparedModel(model, MAX_LEN, use_native=False, prepack=False, use_triton=use_triton)
        runner = ModelRunner(prepared, TinyTokenizer(), num_slots=3, async_decode=True, prefill_chunk_len=16)
        runner.open()
        assert isinstance(prepared.forward, triton_decoder.TritonDecoder) is use_triton
        replies.append(serve(runner, jobs, num_slots=3, chunk_len=16))
    assert replies[0] == replies[1]


@torch.inference_mode()
def test_small_tiles_too() -> None:
    model, fused, triton = make_forwards("gemma3_text", torch.float32, FEW_HEADS)
    assert triton._tile == ops.TILES[0] or DEVICE == "cuda"
    triton._tile = ops.TILES[-1]
    expected, actual = Step(model, fused), Step(model, triton)
    torch.testing.assert_close(actual.prefill(), expected.prefill(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(actual.decode(1), expected.decode(1), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_nan_is_never_read_beyond_a_sequence_and_does_not_leave_its_row() -> None:
    model, _, triton = make_forwards("llama", torch.float32, FEW_HEADS)
    step = Step(model, triton)
    step.prefill()
    expected = step.decode(1)
    for layer in step.slots.cache.slot_layers:
        layer.keys[2, :, PROMPT_LENS[2] + 1 :] = torch.nan
        layer.values[2, :, PROMPT_LENS[2] + 1 :] = torch.nan
    torch.testing.assert_close(step.decode(1), expected)
    for layer in step.slots.cache.slot_layers:
        layer.keys[0, :, 0] = torch.nan
    logits = step.decode(1)
    assert logits[0].isnan().all()
    torch.testing.assert_close(logits[1], expected[1])


def test_the_largest_tile_that_fits_is_chosen() -> None:
    hopper, ampere_of_games = 232_448, 101_376
    assert ops.best_tile(2 * 128, hopper) == ops.Tile(128, 64, 3)
    assert ops.best_tile(2 * 256, hopper) == ops.Tile(64, 64, 2)
    assert ops.best_tile(2 * 128, ampere_of_games) == ops.Tile(64, 64, 2)
    assert ops.best_tile(4 * 256, 1) == ops.TILES[-1]


def test_norms_of_different_epsilon_are_refused() -> None:
    model = tiny_model("llama").to(DEVICE)
    model.model.norm.variance_epsilon = 1e-3
    with pytest.raises(NotFusible, match="different epsilons"):
        triton_decoder.TritonDecoder(fuse(model, MAX_LEN, prepack=False))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@torch.inference_mode()
def test_half_precision_on_a_cuda_device(dtype: torch.dtype, head_dim: int) -> None:
    model, fused, triton = make_forwards("qwen3", dtype, {"head_dim": head_dim})
    exact = Step(model, fused).prefill().float()
    actual = Step(model, triton).prefill().float()
    assert (actual - exact).norm() / exact.norm() < 0.05
