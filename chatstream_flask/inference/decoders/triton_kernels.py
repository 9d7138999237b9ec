"""Triton kernels between the matrix products of a forward pass: norms, rotary embedding, attention, gating.

`triton_ops` documents their arguments. All of them compute in float32 and round once.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rms_norm(x, weight, eps, size):
    return x * tl.rsqrt(tl.sum(x * x, 0) / size + eps) * weight.to(tl.float32)


@triton.jit
def fused_add_rms_norm(
    x_ptr, residual_ptr, residual_weight_ptr, weight_ptr, out_ptr, eps, size,
    HAS_RESIDUAL: tl.constexpr, NORMS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * size
    offsets = tl.arange(0, BLOCK)
    mask = offsets < size
    x = tl.load(x_ptr + row + offsets, mask, 0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual = tl.load(residual_ptr + row + offsets, mask, 0.0).to(tl.float32)
        if NORMS_RESIDUAL:
            residual = _rms_norm(residual, tl.load(residual_weight_ptr + offsets, mask, 0.0), eps, size)
            residual = residual.to(x_ptr.dtype.element_ty).to(tl.float32)
        rounded = (x + residual).to(x_ptr.dtype.element_ty)
        tl.store(x_ptr + row + offsets, rounded, mask)
        x = rounded.to(tl.float32)
    normed = _rms_norm(x, tl.load(weight_ptr + offsets, mask, 0.0), eps, size)
    tl.store(out_ptr + row + offsets, normed.to(out_ptr.dtype.element_ty), mask)


@triton.jit(do_not_specialize_on_alignment=["positions_ptr", "rows_ptr", "cache_positions_ptr"])
def rope_and_cache(
    heads_ptr, query_weight_ptr, key_weight_ptr, cos_ptr, sin_ptr, positions_ptr, rows_ptr,
    cache_positions_ptr, query_ptr, keys_ptr, values_ptr, eps, num_heads, num_kv_heads,
    key_slot_stride, key_head_stride, value_slot_stride, value_head_stride,
    HAS_NORMS: tl.constexpr, HAS_ROTARY: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < HALF
    source = heads_ptr + (token * (num_heads + 2 * num_kv_heads) + head) * 2 * HALF + offsets
    first, second = tl.load(source, mask, 0.0), tl.load(source + HALF, mask, 0.0)
    row, cache_position = tl.load(rows_ptr + token), tl.load(cache_positions_ptr + token)
    if head >= num_heads + num_kv_heads:
        head -= num_heads + num_kv_heads
        target = values_ptr + row * value_slot_stride + head * value_head_stride
        target = target + cache_position * 2 * HALF + offsets
        tl.store(target, first, mask)
        tl.store(target + HALF, second, mask)
    else:
        x1, x2 = first.to(tl.float32), second.to(tl.float32)
        if HAS_NORMS:
            weight_ptr = query_weight_ptr if head < num_heads else key_weight_ptr
            factor = tl.rsqrt((tl.sum(x1 * x1, 0) + tl.sum(x2 * x2, 0)) / (2 * HALF) + eps)
            x1 *= factor * tl.load(weight_ptr + offsets, mask, 0.0).to(tl.float32)
            x2 *= factor * tl.load(weight_ptr + HALF + offsets, mask, 0.0).to(tl.float32)
        if HAS_ROTARY:
            angle = tl.load(positions_ptr + token) * 2 * HALF + offsets
            cos1, sin1 = tl.load(cos_ptr + angle, mask, 0.0), tl.load(sin_ptr + angle, mask, 0.0)
            angle += HALF
            cos2, sin2 = tl.load(cos_ptr + angle, mask, 0.0), tl.load(sin_ptr + angle, mask, 0.0)
            rotated = x1 * cos1.to(tl.float32) + x2 * sin1.to(tl.float32)
            x2 = x2 * cos2.to(tl.float32) + x1 * sin2.to(tl.float32)
            x1 = rotated
        if head < num_heads:
            target = query_ptr + (token * num_heads + head) * 2 * HALF + offsets
        else:
            head -= num_heads
            target = keys_ptr + row * key_slot_stride + head * key_head_stride
            target = target + cache_position * 2 * HALF + offsets
        tl.store(target, x1.to(query_ptr.dtype.element_ty), mask)
        tl.store(target + HALF, x2.to(query_ptr.dtype.element_ty), mask)


@triton.jit(
    do_not_specialize=["num_tiles"],
    do_not_specialize_on_alignment=["positions_ptr", "rows_ptr", "tiles_ptr"],
)
def attention(
    query_ptr, keys_ptr, values_ptr, rows_ptr, positions_ptr, tiles_ptr, num_tiles, out_ptr,
    partial_out_ptr, partial_m_ptr, partial_l_ptr, scale, softcap, window, num_heads,
    key_slot_stride, key_head_stride, value_slot_stride, value_head_stride,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, QUERIES: tl.constexpr, DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, KEYS: tl.constexpr, SPLITS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    first_token, num_tokens = tl.program_id(0).to(tl.int64), 1
    if TOKENS > 1:
        num_tokens = tl.load(tiles_ptr + num_tiles + first_token)
        first_token = tl.load(tiles_ptr + first_token)
    kv_head, split = tl.program_id(1), tl.program_id(2)
    row = tl.load(rows_ptr + first_token)
    queries, dims, block_keys = tl.arange(0, QUERIES), tl.arange(0, BLOCK_DIM), tl.arange(0, KEYS)
    tokens = first_token + queries // GROUP
    query_mask, dim_mask = queries < num_tokens * GROUP, dims < DIM
    # Each query attends to the keys from its start up to its stop; the tile reads the union of them.
    stops = tl.load(positions_ptr + tokens, query_mask, -1).to(tl.int32) + 1
    starts = tl.maximum(stops - window, 0)
    stop, start = tl.max(stops, 0), tl.min(tl.where(query_mask, starts, 1 << 30), 0)
    heads = tokens * num_heads + kv_head * GROUP + queries % GROUP
    query_offsets = heads[:, None] * DIM + dims[None, :]
    q = tl.load(query_ptr + query_offsets, query_mask[:, None] & dim_mask[None, :], 0.0)
    keys_ptr += row * key_slot_stride + kv_head * key_head_stride
    values_ptr += row * value_slot_stride + kv_head * value_head_stride
    m_i = tl.full([QUERIES], -float("inf"), tl.float32)
    l_i = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, BLOCK_DIM], tl.float32)
    for first_key in range(start // KEYS * KEYS + split * KEYS, stop, SPLITS * KEYS):
        keys = first_key + block_keys
        key_offsets = keys[:, None] * DIM + dims[None, :]
        key_mask = (keys < stop)[:, None] & dim_mask[None, :]
        k = tl.load(keys_ptr + key_offsets, key_mask, 0.0)
        qk = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if HAS_SOFTCAP:
            qk = softcap * (2 * tl.sigmoid(2 * qk / softcap) - 1)  # softcap * tanh(qk / softcap)
        is_attended = (keys[None, :] >= starts[:, None]) & (keys[None, :] < stops[:, None])
        qk = tl.where(is_attended, qk, -float("inf"))
        m_ij = tl.maximum(m_i, tl.max(qk, 1))
        m_safe = tl.where(m_ij == -float("inf"), 0.0, m_ij)  # a query that has attended to no key yet
        p = tl.exp(qk - m_safe[:, None])
        alpha = tl.exp(m_i - m_safe)
        v = tl.load(values_ptr + key_offsets, key_mask, 0.0)
        acc = acc * alpha[:, None]
        acc += tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        l_i = l_i * alpha + tl.sum(p, 1)
        m_i = m_ij
    if SPLITS == 1:
        acc = acc / tl.maximum(l_i, 1e-30)[:, None]
        out_mask = query_mask[:, None] & dim_mask[None, :]
        tl.store(out_ptr + query_offsets, acc.to(out_ptr.dtype.element_ty), out_mask)
    else:
        part = heads * SPLITS + split
        tl.store(partial_m_ptr + part, m_i, query_mask)
        tl.store(partial_l_ptr + part, l_i, query_mask)
        partial_out = partial_out_ptr + part[:, None] * DIM + dims[None, :]
        tl.store(partial_out, acc, query_mask[:, None] & dim_mask[None, :])


@triton.jit
def combine_splits(
    partial_out_ptr, partial_m_ptr, partial_l_ptr, out_ptr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    splits, dims = tl.arange(0, SPLITS), tl.arange(0, BLOCK_DIM)
    dim_mask = dims < DIM
    m = tl.load(partial_m_ptr + head * SPLITS + splits)
    alpha = tl.exp(m - tl.max(m, 0))  # 0 for a split that attended to no key
    l_sum = tl.sum(tl.load(partial_l_ptr + head * SPLITS + splits) * alpha, 0)
    offsets = (head * SPLITS + splits)[:, None] * DIM + dims[None, :]
    acc = tl.load(partial_out_ptr + offsets, dim_mask[None, :], 0.0)
    out = tl.sum(acc * alpha[:, None], 0) / l_sum
    tl.store(out_ptr + head * DIM + dims, out.to(out_ptr.dtype.element_ty), dim_mask)


@triton.jit
def act_and_mul(gate_up_ptr, out_ptr, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < size
    gate = tl.load(gate_up_ptr + row * 2 * size + offsets, mask, 0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + (row * 2 + 1) * size + offsets, mask, 0.0).to(tl.float32)
    if ACTIVATION == 0:  # silu
        gate *= tl.sigmoid(gate)
    elif ACTIVATION == 1:  # gelu_tanh; 2 sqrt(2 / pi) = 1.5957691216057308
        gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    else:  # gelu
        gate *= 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(out_ptr + row * size + offsets, (gate * up).to(out_ptr.dtype.element_ty), mask)
