"""PreparedModel: a model made ready to be served, once for all generation threads that share it."""

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
from .decoders.linear import has_products_of, packing_pays
from .decoders.native_decoder import NativeDecoder, NotNative
from .decoders.onednn import is_plain, pack_linears, unpack
from .kv_cache import LayerShape, layer_shapes
from .kv_memory import MIB, check_kv_memory, free_bytes
from .logits_check import check_logits, own_logits
from .model_check import check_model
from .placement import device_of, is_dispatched
from .slot_model import Forward, OwnForward

logger = logging.getLogger("chatstream_flask")

ROOM = 1.2  # times what wider weights take, that must be free for them


class PreparedModel:
    """Chooses the fastest forward that gives the model's own logits; lays the weights out for it, in place.

    The model itself keeps working; its weights are never in memory twice.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        context_len: int,
        *,
        is_native: bool = True,
        packs: bool | None = None,
        by_triton: bool | None = None,
    ) -> None:
        """
        :param by_triton: by kernels in Triton; None: on CUDA
        :param is_native: by compiled code if there is any, on CPU
        :param packs: else by weights laid out for oneDNN; None: if that is measured to be faster, on CPU
        """
        self.model = model.train(False)
        self.context_len = context_len
        self._is_native = is_native
        self._packs = packs
        self._by_triton = model.device.type == "cuda" if by_triton is None else by_triton
        self._preparing = threading.Lock()
        self._forward: Forward | None = None
        self._shapes: list[LayerShape] = []
        self.vocab_size = 0  # of its logits; after `prepare`

    @property
    def forward(self) -> Forward:
        if self._forward is None:
            raise RuntimeError("prepare() comes first")
        return self._forward

    @property
    def device(self) -> torch.device:
        """Where tokens are given to the forward, and logits come from it."""
        return device_of(self.model)

    @property
    def shapes(self) -> list[LayerShape]:
        """Of each layer's keys and values."""
        return self._shapes

    def prepare(self, num_slots: int) -> None:
        """By each thread before it takes memory for so many slots.

        :raises UnsupportedModel: the model cannot be served rightly
        :raises ConfigError: the context is too long for it, or for the memory
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

    def _widen(self) -> bool:
        """A processor without products of this number format is many times faster in float32."""
        model = self.model
        if model.device.type != "cpu" or has_products_of(model.dtype):
            return False
        needed = ROOM * sum(p.numel() for p in model.parameters()) * (4 - model.dtype.itemsize)
        if needed > free_bytes(model.device):
            logger.warning(
                "%s is slow on this processor, and float32 would take %.0f MiB more",
                model.dtype,
                needed / MIB,
            )
            return False
        logger.info("%s is slow on this processor: the model is computed in float32", model.dtype)
        model.float()
        self._shapes = layer_shapes(model)
        return True

    def _choose(self) -> Forward:
        expected = own_logits(self.model)
        if is_dispatched(self.model):
            return self._checked(OwnForward(self.model), expected)
        if self._is_native and self.model.device.type == "cpu":
            try:
                return self._checked(NativeDecoder(self._fused(packs=False)), expected)
            except (NotFusible, NotNative, UnsupportedModel) as error:
                logger.info("no native forward: %s", error)
        if self._by_triton:
            try:
                return self._checked(self._triton(), expected)
            except Exception as error:  # its compiler, and the C compiler it needs, may raise anything
                logger.warning("no forward in Triton, which would be faster: %s", error)
        if self._widen():
            expected = own_logits(self.model)
        refusal: UnsupportedModel | NotFusible
        for packs in (True, False) if self._should_pack() else (False,):
            for make in (self._fused, self._own):
                try:
                    return self._checked(make(packs), expected)
                except (NotFusible, UnsupportedModel) as error:
                    refusal = error
                    logger.info("no %s forward: %s", make.__name__.strip("_"), error)
            unpack(self.model)
        raise refusal

    def _checked(self, forward: Forward, expected: Tensor) -> Forward:
        check_logits(self.model, forward, self._shapes, expected)
        self.vocab_size = expected.shape[-1]
        logger.info("served by %r on %s", forward, self.device)
        return forward

    def _fused(self, packs: bool) -> FusedDecoder:
        return fuse(self.model, self.context_len, packs=packs)

    def _triton(self) -> Forward:
        if find_spec("triton") is None:
            raise NotFusible("triton is not installed")
        from .decoders.triton_decoder import TritonDecoder

        return TritonDecoder(self._fused(packs=False))

    def _own(self, packs: bool) -> Forward:
        if packs:
            pack_linears(self.model)
        return OwnForward(self.model)

    def _should_pack(self) -> bool:
        if self._packs is not None or self.model.device.type != "cpu":
            return bool(self._packs)
        weights = [module.weight for module in self.model.modules() if is_plain(module)]
        return bool(weights) and packing_pays(max(weights, key=lambda weight: weight.numel()))
