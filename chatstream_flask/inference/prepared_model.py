"""PreparedModel: a model made ready for serving, once for all worker threads that share it."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UnsupportedModel
from .decoders.fuse import NotFusible, fuse
from .decoders.fused_decoder import FusedDecoder
from .decoders.linear import has_fast_matmul, prepacking_is_faster
from .decoders.native_decoder import NATIVE_DTYPES, NativeDecoder, NotNative
from .decoders.onednn import is_plain, prepack_linears, restore_linears
from .kv_cache import LayerShape, layer_shapes
from .kv_memory import MIB, check_kv_memory, free_bytes
from .logits_check import check_logits, own_logits
from .model_check import check_model
from .placement import device_of, is_dispatched
from .slot_model import Forward, OwnForward

logger = logging.getLogger("chatstream_flask")

UPCAST_HEADROOM = 1.2  # required free memory / extra float32 bytes


class PreparedModel:
    """Chooses the fastest forward pass that gives the model's own logits.

    The weights are rearranged for it in place: the model keeps working, and no weight is in memory twice.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        context_len: int,
        *,
        use_native: bool = True,
        prepack: bool | None = None,
        use_triton: bool | None = None,
    ) -> None:
        """Prepare a model for this device.

        :param use_triton: try Triton kernels; None: on CUDA
        :param use_native: on CPU, try the compiled decoder
        :param prepack: on CPU without the compiled decoder, lay the weights out for oneDNN; None: if that is
            measured to be faster
        """
        self.model = model.train(False)
        self.context_len = context_len
        self._use_native = use_native
        self._prepack = prepack
        self._use_triton = model.device.type == "cuda" if use_triton is None else use_triton
        self._preparing = threading.Lock()
        self._forward: Forward | None = None
        self._shapes: list[LayerShape] = []
        self.vocab_size = 0  # of the logits; known after `prepare`

    @property
    def forward(self) -> Forward:
        if self._forward is None:
            raise RuntimeError("call prepare() first")
        return self._forward

    @property
    def device(self) -> torch.device:
        """The device that takes token ids and returns logits."""
        return device_of(self.model)

    @property
    def shapes(self) -> list[LayerShape]:
        """The shape of each layer's keys and values."""
        return self._shapes

    def prepare(self, num_slots: int) -> None:
        """Check and prepare the model; each worker thread calls this before it allocates its slots.

        :raises UnsupportedModel: the model cannot be served correctly
        :raises ConfigError: the context is too long for the model, or for the memory
        """
        with self._preparing, torch.no_grad(), self._current_device():
            if not self._shapes:
                check_model(self.model, self.context_len)
                self._shapes = layer_shapes(self.model)
            check_kv_memory(self._shapes, num_slots=num_slots, max_len=self.context_len)
            if self._forward is None:
                self._forward = self._choose()

    def _current_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _choose(self) -> Forward:
        expected = own_logits(self.model)
        if is_dispatched(self.model):
            return self._checked(OwnForward(self.model), expected)
        if self._use_native and self.model.device.type == "cpu":
            if self.model.dtype not in NATIVE_DTYPES and self._upcast():
                expected = own_logits(self.model)
            try:
                return self._checked(NativeDecoder(self._fused(prepack=False)), expected)
            except (NotFusible, NotNative, UnsupportedModel) as error:
                logger.info("the compiled decoder is not used: %s", error)
        if self._use_triton:
            try:
                return self._checked(self._triton(), expected)
            except Exception as error:  # Triton's compiler, and the C compiler it needs, may raise anything
                logger.warning("Triton kernels, which would be faster, are not used: %s", error)
        if self._upcast():
            expected = own_logits(self.model)
        refusal: UnsupportedModel | NotFusible
        for prepack in (True, False) if self._should_prepack() else (False,):
            for make in (self._fused, self._own):
                try:
                    return self._checked(make(prepack), expected)
                except (NotFusible, UnsupportedModel) as error:
                    refusal = error
                    logger.info("the %s forward pass is not used: %s", make.__name__.strip("_"), error)
            restore_linears(self.model)
        raise refusal

    def _checked(self, forward: Forward, expected: Tensor) -> Forward:
        check_logits(self.model, forward, self._shapes, expected)
        self.vocab_size = expected.shape[-1]
        logger.info("served by %r on %s", forward, self.device)
        return forward

    def _upcast(self) -> bool:
        """Convert the model to float32 on a processor that is many times slower in the model's dtype."""
        model = self.model
        if model.device.type != "cpu" or has_fast_matmul(model.dtype):
            return False
        needed = UPCAST_HEADROOM * sum(p.numel() for p in model.parameters()) * (4 - model.dtype.itemsize)
        if needed > free_bytes(model.device):
            logger.warning(
                "%s is slow on this processor, but float32 would take %.0f MiB more",
                model.dtype,
                needed / MIB,
            )
            return False
        logger.info("%s is slow on this processor: the model is computed in float32", model.dtype)
        model.float()
        self._shapes = layer_shapes(model)
        return True

    def _fused(self, prepack: bool) -> FusedDecoder:
        return fuse(self.model, self.context_len, prepack=prepack)

    def _triton(self) -> Forward:
        if find_spec("triton") is None:
            raise NotFusible("triton is not installed")
        from .decoders.triton_decoder import TritonDecoder

        return TritonDecoder(self._fused(prepack=False))

    def _own(self, prepack: bool) -> Forward:
        if prepack:
            prepack_linears(self.model)
        return OwnForward(self.model)

    def _should_prepack(self) -> bool:
        if self._prepack is not None or self.model.device.type != "cpu":
            return bool(self._prepack)
        weights = [module.weight for module in self.model.modules() if is_plain(module)]
        return bool(weights) and prepacking_is_faster(max(weights, key=lambda weight: weight.numel()))
