"""Special tokens that stay in a reply's text."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from chatstream_flask.inference.keeping_decoder import KeepingDecoder
from chatstream_flask.inference.text_decoder import make_text_decoder


def test_only_the_kept_special_tokens_are_text() -> None:
    words = {"a": 0, "Ġb": 1, "Ã": 2, "©": 3}  # the last two are the halves of one character
    backend = Tokenizer(BPE(words, []))
    backend.decoder = ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=backend, additional_special_tokens=["[TOOL_CALLS]", "<|eom|>"])
    calls, end = tokenizer.convert_tokens_to_ids(["[TOOL_CALLS]", "<|eom|>"])
    decoder = KeepingDecoder(make_text_decoder(tokenizer), {calls: "[TOOL_CALLS]"})
    pieces = [decoder.push(token_id) for token_id in (0, 1, end, calls, 0, 2, 3, 2, calls, 1)]
    assert pieces == ["a", " b", "", "[TOOL_CALLS]", "a", "", "é", "", "[TOOL_CALLS]", " b"]
    assert decoder.finish() == ""
