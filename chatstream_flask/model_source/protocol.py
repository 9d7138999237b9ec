"""ModelSource: the interface between the chat and whatever generates its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..config import ContextPolicy, SamplingParams
from ..engine.runner import Runner
from ..engine.upstream_stats import UpstreamStats
from ..prompts import AbstractChatPrompt
from ..prompts.fit import FittedPrompt
from ..prompts.message_forms import Message
from ..reply_format.family import ReplyFormat


class ModelSource(Protocol):
    """Tokenizer, limits and runners of one model."""

    model_name: str  # the name of its folder, or its id on the hub
    reply_format: ReplyFormat  # how the model writes reasoning and tool calls
    num_devices: int  # each holds a copy of the model
    context_len: int  # maximum number of tokens of prompt and reply together
    prefill_chunk_len: int  # maximum number of prompt tokens between two decode steps

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that renders prompts as text, by its `apply_chat_template`."""

    def best_num_threads(self, num_sequences: int) -> int:
        """Return the default number of worker threads for `num_sequences` concurrent replies."""

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        """Create the runner of one of `num_threads` worker threads, on the device with index `device`."""

    def upstreams(self) -> Sequence[UpstreamStats]:
        """Return the servers that generate in place of this process."""

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        """Encode the prompt into at most `max_tokens` tokens.

        :raises PromptTooLong: it does not fit, and the policy does not allow to shorten it
        :raises BadRequest: the model has no embedding for one of its tokens
        """

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        """Return the prompt as the text that the model reads."""

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        """Encode messages with the chat template, up to where the next reply begins.

        :raises BadRequest: the chat template refuses them, or the model has no embedding for a token
        """

    def encode_text(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        """Encode a prompt as it is; control tokens written in it are recognised.

        :param add_special_tokens: whether the tokenizer adds its own, such as one for the beginning; None
            leaves it to the constructor's setting
        :raises BadRequest: the model has no embedding for one of its tokens
        """

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """Refuse token ids of a client that the model does not have.

        :raises BadRequest: with the first of them
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the tokens, control tokens included."""

    def token_text(self, token_id: int) -> str:
        """Return the text of one token in mid-text; U+FFFD stands for a part of a character."""

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the UTF-8 bytes of one token in mid-text; None if they cannot be told."""

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        """Return the ids of those stop strings that are one control token.

        Control tokens never appear in the decoded text, so they cannot be found there.
        """

    def check(self, params: SamplingParams) -> None:
        """Refuse parameters that this model does not support, such as unknown token ids or a grammar.

        :raises BadRequest: with the reason
        """
