"""A real model, SmolLM2-135M-Instruct, loaded as users load it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from smollm2 import PROMPTS, greedy_replies, smollm2_folder
from suite_size import size

from chatstream_flask import ChatStream
from chatstream_flask.inference.decoders.native_decoder import NativeDecoder
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.inference.prepared_model import PreparedModel

NUM_PROMPTS, NUM_TOKENS = size(4, 20), size(16, 128)
# As llama.cpp tokenises them with the GGUF file of the same model.
LLAMA_CPP_IDS = {
    "In 1984, he's 42 years old.": [788, 216, 33, 41, 40, 36, 28, 384, 506, 216, 36, 34, 929, 1573, 30],
    "  two spaces\n\n\ttab": [216, 827, 5600, 1116, 197, 15999],
    "emoji 👩\u200d💻 ok": [391, 33777, 15107, 235, 119, 321, 231, 10813, 236, 136, 10907],
    "ÀÉÎõü ½ ²": [142, 218, 39614, 142, 232, 44511, 7170, 216, 16738, 216, 19133],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
    "I'VE don't WE'll": [57, 23, 18525, 1326, 982, 26587, 3060],
    "\r\nx\u00a0y": [201, 198, 104, 15442, 105],
}


def generated(model: Any, tokenizer: Any, prompt: list[int], num_tokens: int) -> str:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        reply = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False
        )
    text: str = tokenizer.decode(reply[0, len(prompt) :], skip_special_tokens=True)
    return text.rstrip("\N{REPLACEMENT CHARACTER}")  # the engine holds back a character that the limit cuts


def test_greedy_replies_equal_generate() -> None:
    folder = smollm2_folder()
    model, tokenizer, _ = load_model(str(folder), "cpu", "float32")
    chat_stream = ChatStream.from_pretrained(
        folder, device="cpu", dtype="float32", context_len=256, num_of_concurrent_executions=NUM_PROMPTS
    )
    prompts = [
        chat_stream.source.encode_messages([{"role": "user", "content": text}], [], {})
        for text in PROMPTS[:NUM_PROMPTS]
    ]
    chat_stream.start_queue_worker()
    try:
        replies = greedy_replies(chat_stream.engine, prompts, NUM_TOKENS)
    finally:
        chat_stream.close()
    assert replies == [generated(model, tokenizer, prompt, NUM_TOKENS) for prompt in prompts]


@pytest.mark.skipif(native_library() is None, reason="no C compiler when this was installed")
def test_its_defaults_and_its_fastest_forward_are_used() -> None:
    chat_stream = ChatStream.from_pretrained(smollm2_folder(), device="cpu", context_len=256)
    assert (chat_stream.params.temperature, chat_stream.params.top_p) == (0.2, 0.9)
    chat_stream.start_queue_worker()
    try:
        (prepared,) = chat_stream.source._prepared  # type: ignore[attr-defined]
        assert isinstance(prepared.forward, NativeDecoder)
        assert prepared.model.dtype == torch.bfloat16
    finally:
        chat_stream.close()


@pytest.mark.skipif(native_library() is None, reason="no C compiler when this was installed")
def test_rounded_weights_are_served_in_float32() -> None:
    """Rounded inputs make differences in the last bit larger, from layer to layer."""
    model = load_model(str(smollm2_folder()), "cpu", "float32", weights="int8").model
    prepared = PreparedModel(model, 64)
    prepared.prepare(1)
    assert isinstance(prepared.forward, NativeDecoder)


def test_text_becomes_the_tokens_of_llama_cpp() -> None:
    tokenizer = load_model(str(smollm2_folder()), "cpu").tokenizer
    assert {text: tokenizer.encode(text) for text in LLAMA_CPP_IDS} == LLAMA_CPP_IDS
