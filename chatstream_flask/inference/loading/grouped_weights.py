"""Matrices of GPTQ, AWQ and compressed-tensors: integers of 4 or 8 bits with a scale for each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decoders.packed import BLOCK, PACKED_FORMATS, PackedMatrix
from ..decoders.quantise import quantised

AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # where the outputs 0, 1, 2 ... of an int32 lie in it
GetTensor = Callable[[str], Tensor | None]


@dataclass(frozen=True)
class GroupedWeights:
    """A matrix whose weight of output o and input i is scales[o, g] * (values[o, i] - zeros[o, g]).

    :param values: uint8 `[outputs, inputs]`
    :param scales: float32 `[outputs, groups]`
    :param zeros: int32 `[outputs, groups]`
    :param groups: the group g of each input; None: they follow each other and are of the same size
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int
    groups: Tensor | None = None

    def packed(self) -> PackedMatrix:
        """Return the matrix in blocks of 32 inputs: Q4_0, Q4_1 or Q8_0.

        Values stay as they are. Minimums of Q4_1, scale times zero point, are rounded to half precision.
        Where that does not fit, as for inputs in the order of their activations, weights are rounded to Q8_0.
        """
        num_outputs, num_inputs = self.values.shape
        groups = self._groups_in_order()
        of_blocks = groups[::BLOCK]
        scales, zeros = self.scales[:, of_blocks], self.zeros[:, of_blocks]
        middle = 1 << self.bits - 1
        is_symmetric = bool((zeros == middle).all())
        is_in_blocks = torch.equal(of_blocks.repeat_interleave(BLOCK), groups)
        if not is_in_blocks or (self.bits == 8 and not is_symmetric):
            weight = self.scales[:, groups] * (self.values - self.zeros[:, groups])
            return quantised(weight, PACKED_FORMATS["Q8_0"])
        values = self.values.view(num_outputs, -1, BLOCK)
        head = [_half_bytes(scales)]
        if self.bits == 8:
            name = "Q8_0"
            values = values ^ middle  # the same bits as those of value - middle
        else:
            name = "Q4_0" if is_symmetric else "Q4_1"
            values = values[..., : BLOCK // 2] | values[..., BLOCK // 2 :] << 4
            if not is_symmetric:
                head.append(_half_bytes(-scales * zeros))
        data = torch.cat([*head, values], dim=-1).view(num_outputs, -1)
        return PackedMatrix(data, num_inputs, PACKED_FORMATS[name])

    def _groups_in_order(self) -> Tensor:
        num_inputs, num_groups = self.values.shape[1], self.scales.shape[1]
        if self.groups is not None:
            return self.groups.long()
        return torch.arange(num_inputs) // -(-num_inputs // num_groups)


def gptq(tensor: GetTensor, num_inputs: int, *, has_lowered_zeros: bool) -> GroupedWeights | None:
    """Read the tensors of a module as GPTQ names them; None: it has none.

    :param has_lowered_zeros: zero points are stored minus one, as in all files but those of `gptq_v2`
    """
    words, zero_words, scales = tensor("qweight"), tensor("qzeros"), tensor("scales")
    if words is None or zero_words is None or scales is None:
        return None
    bits = len(words) * 32 // num_inputs
    zeros = unpacked(zero_words, bits, 1).int()
    if has_lowered_zeros:
        zeros = zeros + 1 & (1 << bits) - 1
    values = unpacked(words, bits, 0).T.contiguous()
    return GroupedWeights(values, scales.T.float(), zeros.T, bits, tensor("g_idx"))


def awq(tensor: GetTensor, num_inputs: int) -> GroupedWeights | None:
    """Read the tensors of a module as AWQ's layout for GEMM names them; None: it has none."""
    words, zero_words, scales = tensor("qweight"), tensor("qzeros"), tensor("scales")
    if words is None or zero_words is None or scales is None:
        return None
    values, zeros = (
        unpacked(it, 4, 1).view(len(it), -1, len(AWQ_ORDER))[..., AWQ_ORDER].view(len(it), -1)
        for it in (words, zero_words)
    )
    return GroupedWeights(values.T.contiguous(), scales.T.float(), zeros.T.int(), 4)


def compressed_tensors(tensor: GetTensor, num_inputs: int) -> GroupedWeights | None:
    """Read the tensors of a module as compressed-tensors names them; None: it has none."""
    scales = tensor("weight_scale")
    if scales is None:
        return None
    zeros, words, integers = tensor("weight_zero_point"), tensor("weight_packed"), tensor("weight")
    if words is not None:
        bits = words.shape[1] * 32 // num_inputs
        values = unpacked(words, bits, 1)[:, :num_inputs].contiguous()
        zeros = None if zeros is None else unpacked(zeros, bits, 0)[: len(values)]
    elif integers is not None and integers.dtype == torch.int8:
        bits = 8
        values = integers.view(torch.uint8) ^ 128
        zeros = None if zeros is None else zeros.int() + 128
    else:
        return None
    scales = scales.float().view(-1, scales.shape[-1] if scales.ndim > 1 else 1)
    shape = len(values), scales.shape[1]
    zeros = torch.tensor(1 << bits - 1) if zeros is None else zeros.int().view(-1, zeros.shape[-1])
    return GroupedWeights(values, scales.expand(shape), zeros.expand(shape), bits, tensor("weight_g_idx"))


def unpacked(words: Tensor, bits: int, dim: int) -> Tensor:
    """Return the integers of 4 or 8 bits that lie in each int32, the lowest bits first, as uint8.

    :param dim: 0 or 1, along which they follow each other
    """
    values = words.transpose(dim, 1).contiguous().view(torch.uint8)
    if bits == 4:
        values = torch.stack([values & 15, values >> 4], dim=-1).flatten(1)
    return values.transpose(dim, 1)


def _half_bytes(values: Tensor) -> Tensor:
    """Return numbers `[outputs, blocks]` in half precision, uint8 `[outputs, blocks, 2]`."""
    return values.half().contiguous().view(torch.uint8).view(*values.shape, 2)
