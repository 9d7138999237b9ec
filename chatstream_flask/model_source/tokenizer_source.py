"""TokenizerSource: prompts into token ids and ids into text, for all sources that have a real tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..config import ContextPolicy
from ..engine.upstream_stats import UpstreamStats
from ..inference.text_decoder import UNFINISHED
from ..prompts import AbstractChatPrompt
from ..prompts.fit import FittedPrompt, KeptStarts, fit_to_context
from ..prompts.message_forms import Message
from ..prompts.message_prompt import encode_messages
from ..reply_format.family import find_reply_format
from .long_prompts import LongPrompts
from .token_bytes import part_of_character
from .vocabulary import check_ids


class TokenizerSource:
    """The part of a ModelSource that needs only the tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        context_len: int,
        add_special_tokens: bool | None,
        num_embeddings: int | None = None,
    ) -> None:
        """Take over a tokenizer that nobody else changes.

        :param num_embeddings: prompts with ids from here on are refused; None: all ids are known
        """
        self.context_len = context_len
        self.reply_format = find_reply_format(tokenizer)
        self._tokenizer = tokenizer
        self._add_special_tokens = add_special_tokens
        self._num_embeddings = num_embeddings
        self._long_prompts = LongPrompts(tokenizer, context_len)
        self._kept_starts = KeptStarts()

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def upstreams(self) -> Sequence[UpstreamStats]:
        return ()

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        fitted = fit_to_context(
            prompt, self._tokenizer, max_tokens, self._add_special_tokens, policy, self._kept_starts
        )
        self._known(fitted.token_ids)
        return fitted

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        return prompt.create_prompt({"tokenizer": self._tokenizer})

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        with self._long_prompts.tokenizing([*messages, *tools]):
            return self._known(encode_messages(self._tokenizer, messages, tools, template_kwargs))

    def encode_text(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        given = self._add_special_tokens if add_special_tokens is None else add_special_tokens
        kwargs = {} if given is None else {"add_special_tokens": given}
        with self._long_prompts.tokenizing(text):
            return self._known(list(self._tokenizer.encode(text, **kwargs)))

    def check_ids(self, token_ids: Sequence[int]) -> None:
        check_ids(token_ids, self._num_embeddings or len(self._tokenizer), self._tokenizer)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def token_text(self, token_id: int) -> str:
        """Return the token's text after another token: decoders drop a space at the start of a text."""
        before = self._token_before
        return self.decode([*before, token_id]).removeprefix(self.decode(before))

    def token_bytes(self, token_id: int) -> bytes | None:
        text = self.token_text(token_id)
        return part_of_character(self._tokenizer, token_id) if UNFINISHED in text else text.encode()

    @cached_property
    def _token_before(self) -> list[int]:
        return list(self._tokenizer.encode("a", add_special_tokens=False))

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        added = self._tokenizer.get_added_vocab()
        return frozenset(added[string] for string in stop_strings if string in added)

    def _known(self, token_ids: list[int]) -> list[int]:
        """Return the ids of a prompt.

        :raises BadRequest: the model has no embedding for one of them
        """
        if self._num_embeddings is not None:
            check_ids(token_ids, self._num_embeddings, self._tokenizer)
        return token_ids
