"""MockSource: fixed phrases in place of a model; needs neither torch nor transformers nor a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..config import ContextPolicy, SamplingParams
from ..engine.runner import Runner
from ..errors import BadRequest
from ..mock.mock_runner import CLOSING_ID, MockParams, MockRunner, encode_mock_prompt
from ..prompts import AbstractChatPrompt
from ..prompts.fit import FittedPrompt
from ..prompts.message_forms import Message, text_of
from ..reply_format.family import ReplyFormat
from ..reply_format.reasoning_tags import ReasoningTags

THINKING = ReplyFormat(
    reasoning=ReasoningTags("<think>", "</think>"),
    opening_ids=(0,),  # the first token of a reply
    closing_ids=(CLOSING_ID,),
    first_closing_ids=(CLOSING_ID,),
)


NUM_CHARACTERS = 0x110000


class PlainLines:
    """Stands for a tokenizer: its chat template shows messages as plain lines."""

    chat_template = "a line for each message"

    def apply_chat_template(self, messages: Iterable[Message], **kwargs: Any) -> str:
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class MockSource:
    """The ModelSource of `use_mock_response=True`."""

    num_devices = 1
    prefill_chunk_len = 1_000_000  # a mock prompt costs nothing
    model_name = "mock"
    tokenizer = PlainLines()

    def __init__(self, mock_params: dict[str, Any] | None, context_len: int) -> None:
        self._params = MockParams.of(mock_params or {})
        self.reply_format = THINKING if self._params.type == "reasoning" else ReplyFormat()
        self.context_len = context_len

    def best_num_threads(self, num_sequences: int) -> int:
        return 1

    def upstreams(self) -> tuple[()]:
        return ()

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        return MockRunner(self._params)

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        return frozenset()

    def check(self, params: SamplingParams) -> None:
        if params.grammar is not None:
            raise BadRequest("the mock does not support structured output: its phrases are fixed")
        if params.num_prompt_logprobs is not None:
            raise BadRequest("the mock has no log-probabilities of a prompt: it computes none")

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        messages = [c.message or "" for c in prompt.get_contents() if c.is_requester]
        return FittedPrompt(encode_mock_prompt(messages), 0)

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        return prompt.create_prompt({"tokenizer": self.tokenizer})

    def encode_messages(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        if tools:
            raise BadRequest("the mock does not support tools")
        return encode_mock_prompt([text_of(m) for m in messages if m["role"] == "user"] or [""])

    def encode_text(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        return encode_mock_prompt([text])

    def check_ids(self, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            if token_id >= NUM_CHARACTERS or 0xD800 <= token_id < 0xE000:
                raise BadRequest(f"token id {token_id} is no character; ids of the mock are code points")

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def token_text(self, token_id: int) -> str:
        """Return a placeholder: an id is an index into a phrase and has no text of its own."""
        return f"<{token_id}>"

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of the placeholder."""
        return self.token_text(token_id).encode()
