"""SlotModel: the model's own forward over slots, tokens at any position of each."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from .attention_mask import AttentionMask
from .kv_cache import LayerShape, SlotCache

KEY_LEN_STEP = 64  # key lengths are rounded up to a multiple of this, so that shapes repeat


class SlotModel:
    """`max_len` is the longest sequence of a slot, and the number of the scratch column."""

    def __init__(
        self, model: PreTrainedModel, shapes: list[LayerShape], *, num_slots: int, max_len: int
    ) -> None:
        config = model.config.get_text_config()
        self.max_len = max_len
        self.cache = SlotCache(shapes, num_slots=num_slots, max_len=max_len, device=model.device)
        self._model = model
        self._mask = AttentionMask(config, max_len=max_len, device=model.device, dtype=model.dtype)

    def key_len(self, num_tokens: int) -> int:
        """Columns read for sequences of up to `num_tokens`."""
        return min(-(-num_tokens // KEY_LEN_STEP) * KEY_LEN_STEP, self.max_len)

    def logits(
        self, first_slot: int, ids: Tensor, positions: Tensor, columns: Tensor, key_len: int
    ) -> Tensor:
        """Logits `[rows, vocab]` of the last token of each row; rows are slots `first_slot ..`.

        `ids`, `positions` and `columns` (where each token's keys go) are `[rows, tokens]`.
        """
        self.cache.select(first_slot, columns, key_len)
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask.build(positions, key_len),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        last: Tensor = output.logits[:, -1]
        return last
