"""What a step on CUDA does between its large products, as few kernels: norms, rotary, attention, gating.

Triton's language; `triton_operations` says what each is given. All compute in float32 and round once.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rms(x, weight, eps, size):
    return x * tl.rsqrt(tl.sum(x * x, 0) / size + eps) * weight.to(tl.float32)


@triton.jit
def add_and_norm(
    x, added, added_weight, weight, out, eps, size,
    ADDS: tl.constexpr, NORMS_ADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, BLOCK)
    inside = at < size
    own = tl.load(x + row + at, inside, 0.0).to(tl.float32)
    if ADDS:
        more = tl.load(added + row + at, inside, 0.0).to(tl.float32)
        if NORMS_ADDED:
            more = _rms(more, tl.load(added_weight + at, inside, 0.0), eps, size)
            more = more.to(x.dtype.element_ty).to(tl.float32)
        rounded = (own + more).to(x.dtype.element_ty)
        tl.store(x + row + at, rounded, inside)
        own = rounded.to(tl.float32)
    normed = _rms(own, tl.load(weight + at, inside, 0.0), eps, size)
    tl.store(out + row + at, normed.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize_on_alignment=["positions", "rows", "columns"])
def turn_and_store(
    heads, query_weight, key_weight, cos, sin, positions, rows, columns, query, keys, values, eps,
    num_heads, num_key_heads, slot_stride, head_stride, value_slot_stride, value_head_stride,
    NORMS: tl.constexpr, TURNS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < HALF
    source = heads + (token * (num_heads + 2 * num_key_heads) + head) * 2 * HALF + at
    first, second = tl.load(source, inside, 0.0), tl.load(source + HALF, inside, 0.0)
    row, column = tl.load(rows + token), tl.load(columns + token)
    if head >= num_heads + num_key_heads:
        head -= num_heads + num_key_heads
        target = values + row * value_slot_stride + head * value_head_stride + column * 2 * HALF + at
        tl.store(target, first, inside)
        tl.store(target + HALF, second, inside)
    else:
        one, other = first.to(tl.float32), second.to(tl.float32)
        if NORMS:
            weight = query_weight if head < num_heads else key_weight
            factor = tl.rsqrt((tl.sum(one * one, 0) + tl.sum(other * other, 0)) / (2 * HALF) + eps)
            one *= factor * tl.load(weight + at, inside, 0.0).to(tl.float32)
            other *= factor * tl.load(weight + HALF + at, inside, 0.0).to(tl.float32)
        if TURNS:
            angle = tl.load(positions + token) * 2 * HALF + at
            one_cos, one_sin = tl.load(cos + angle, inside, 0.0), tl.load(sin + angle, inside, 0.0)
            angle += HALF
            other_cos, other_sin = tl.load(cos + angle, inside, 0.0), tl.load(sin + angle, inside, 0.0)
            turned = one * one_cos.to(tl.float32) + other * one_sin.to(tl.float32)
            other = other * other_cos.to(tl.float32) + one * other_sin.to(tl.float32)
            one = turned
        if head < num_heads:
            target = query + (token * num_heads + head) * 2 * HALF + at
        else:
            head -= num_heads
            target = keys + row * slot_stride + head * head_stride + column * 2 * HALF + at
        tl.store(target, one.to(query.dtype.element_ty), inside)
        tl.store(target + HALF, other.to(query.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["num_tiles"], do_not_specialize_on_alignment=["positions", "rows", "tiles"])
def attend(
    query, keys, values, rows, positions, tiles, num_tiles, out, parts, heights, sums, scale, softcap, window,
    num_heads, slot_stride, head_stride, value_slot_stride, value_head_stride,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, QUERIES: tl.constexpr, DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, KEYS: tl.constexpr, SPLITS: tl.constexpr, CAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    first_token, num_tokens = tl.program_id(0).to(tl.int64), 1
    if TOKENS > 1:
        num_tokens = tl.load(tiles + num_tiles + first_token)
        first_token = tl.load(tiles + first_token)
    key_head, split = tl.program_id(1), tl.program_id(2)
    row = tl.load(rows + first_token)
    of_queries, dims, of_keys = tl.arange(0, QUERIES), tl.arange(0, BLOCK_DIM), tl.arange(0, KEYS)
    tokens = first_token + of_queries // GROUP
    is_own, has_dim = of_queries < num_tokens * GROUP, dims < DIM
    stops = tl.load(positions + tokens, is_own, -1).to(tl.int32) + 1
    starts = tl.maximum(stops - window, 0)
    stop, start = tl.max(stops, 0), tl.min(tl.where(is_own, starts, 1 << 30), 0)
    heads = tokens * num_heads + key_head * GROUP + of_queries % GROUP
    at = heads[:, None] * DIM + dims[None, :]
    asked = tl.load(query + at, is_own[:, None] & has_dim[None, :], 0.0)
    keys += row * slot_stride + key_head * head_stride
    values += row * value_slot_stride + key_head * value_head_stride
    height = tl.full([QUERIES], -float("inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES, BLOCK_DIM], tl.float32)
    for first in range(start // KEYS * KEYS + split * KEYS, stop, SPLITS * KEYS):
        columns = first + of_keys
        where = columns[:, None] * DIM + dims[None, :]
        is_there = (columns < stop)[:, None] & has_dim[None, :]
        key = tl.load(keys + where, is_there, 0.0)
        scores = tl.dot(asked, tl.trans(key), input_precision=PRECISION) * scale
        if CAPS:
            scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)  # tanh
        is_seen = (columns[None, :] >= starts[:, None]) & (columns[None, :] < stops[:, None])
        scores = tl.where(is_seen, scores, -float("inf"))
        higher = tl.maximum(height, tl.max(scores, 1))
        against = tl.where(higher == -float("inf"), 0.0, higher)  # where nothing was seen yet
        weights = tl.exp(scores - against[:, None])
        shrunk = tl.exp(height - against)
        value = tl.load(values + where, is_there, 0.0)
        seen = seen * shrunk[:, None]
        seen += tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        total = total * shrunk + tl.sum(weights, 1)
        height = higher
    if SPLITS == 1:
        seen = seen / tl.maximum(total, 1e-30)[:, None]
        tl.store(out + at, seen.to(out.dtype.element_ty), is_own[:, None] & has_dim[None, :])
    else:
        part = heads * SPLITS + split
        tl.store(heights + part, height, is_own)
        tl.store(sums + part, total, is_own)
        tl.store(parts + part[:, None] * DIM + dims[None, :], seen, is_own[:, None] & has_dim[None, :])


@triton.jit
def combine(parts, heights, sums, out, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    of_splits, dims = tl.arange(0, SPLITS), tl.arange(0, BLOCK_DIM)
    has_dim = dims < DIM
    height = tl.load(heights + head * SPLITS + of_splits)
    shares = tl.exp(height - tl.max(height, 0))  # 0 of a split that saw nothing
    total = tl.sum(tl.load(sums + head * SPLITS + of_splits) * shares, 0)
    at = (head * SPLITS + of_splits)[:, None] * DIM + dims[None, :]
    seen = tl.load(parts + at, has_dim[None, :], 0.0)
    mixed = tl.sum(seen * shares[:, None], 0) / total
    tl.store(out + head * DIM + dims, mixed.to(out.dtype.element_ty), has_dim)


@triton.jit
def gate(gate_up, out, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    gate = tl.load(gate_up + row * 2 * size + at, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + (row * 2 + 1) * size + at, inside, 0.0).to(tl.float32)
    if ACTIVATION == 0:
        gate *= tl.sigmoid(gate)
    elif ACTIVATION == 1:
        gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))  # 2 sqrt(2 / pi)
    else:
        gate *= 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * size + at, (gate * up).to(out.dtype.element_ty), inside)
