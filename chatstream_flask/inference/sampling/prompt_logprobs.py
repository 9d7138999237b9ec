"""Log-probabilities of the tokens of a prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.reply_text import TokenLogprob


def prompt_logprobs(logits: Tensor, next_ids: list[int], num_top: int) -> list[TokenLogprob]:
    """Return the log-probability of each token, and of the most likely ones in its place.

    :param logits: `[tokens, vocab]`, after the token before each of `next_ids`
    :param num_top: how many of the most likely tokens to return
    """
    scores = logits.float().log_softmax(-1)
    chosen = torch.tensor(next_ids, dtype=torch.long, device=scores.device)[:, None]
    values = scores.gather(1, chosen)
    ranks = 1 + (scores > values).sum(-1)
    top = scores.topk(min(num_top, scores.shape[1]))
    rows = zip(
        next_ids,
        values[:, 0].tolist(),
        top.indices.tolist(),
        top.values.tolist(),
        ranks.tolist(),
        strict=True,
    )
    return [
        TokenLogprob(token_id, value, tuple(zip(top_ids, top_values, strict=True)), rank)
        for token_id, value, top_ids, top_values, rank in rows
    ]
