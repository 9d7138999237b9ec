"""What a forward pass computes of each sequence: chunks of prompts, newest tokens, draft tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ..engine.sequence import Chunk, Sequence
from .batched_prefill import BatchedPrefill, Part


def part_of(chunk: Chunk) -> Part:
    sequence, start = chunk.sequence, chunk.sequence.num_cached
    return Part(sequence.slot, sequence.token_ids[start : chunk.stop], start)


def newest_tokens(sequence: Sequence) -> list[int]:
    """Return the tokens of a decode step: the newest one, then the drafts."""
    return [sequence.token_ids[sequence.num_cached], *sequence.drafts]


def decode_inputs(rows: list[Sequence | None], width: int, scratch: int) -> list[int]:
    """Return token ids, then positions, then cache positions, `[rows, width]` each, flattened.

    Padding has id 0 and is written to the `scratch` position of the cache. It repeats the position of the
    token before it, because positions within a row must not decrease.
    """
    ids: list[int] = []
    positions: list[int] = []
    cache_positions: list[int] = []
    for sequence in rows:
        first = 0 if sequence is None else sequence.num_cached
        tokens = [] if sequence is None else newest_tokens(sequence)
        stop, num_padding = first + len(tokens), width - len(tokens)
        ids += tokens + [0] * num_padding
        positions += [*range(first, stop), *[max(stop - 1, 0)] * num_padding]
        cache_positions += [*range(first, stop), *[scratch] * num_padding]
    return ids + positions + cache_positions


def draft_logits(prefill: BatchedPrefill, rows: list[Sequence | None], width: int) -> Tensor:
    """Compute the newest token and the drafts of each row in one forward pass over parts.

    Returns logits `[rows, width, vocab]`; those of padding are undefined.
    """
    parts: list[Part] = []
    indices: list[int] = []
    for sequence in rows:
        tokens = [] if sequence is None else newest_tokens(sequence)
        indices += [len(parts) + i if i < len(tokens) else 0 for i in range(width)]
        if sequence is not None:
            parts += [Part(sequence.slot, [token], sequence.num_cached + i) for i, token in enumerate(tokens)]
    logits = prefill.logits(parts)
    return logits[torch.tensor(indices, device=logits.device)].view(len(rows), width, -1)
