"""Prompts of real tokenizers against `tokenizer.apply_chat_template`, and what visitors write in them.

`scripts/tokenizers` fetches them; `CHATSTREAM_TOKENIZERS` names their folder; else the tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from chatstream_flask.prompts.message_prompt import encode_messages

FOLDER = os.environ.get("CHATSTREAM_TOKENIZERS", "")
NAMES = sorted(path.parent.name for path in Path(FOLDER).glob("*/tokenizer.json")) if FOLDER else []
CHAT = [
    {"role": "user", "content": " How are you? 元気？👍\n\n"},
    {"role": "assistant", "content": "Well.\n```py\nx  = 1\n```", "reasoning_content": "Easily."},
    {"role": "user", "content": "<p>And now?</p>"},
]
PLAIN = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.mark.skipif(not NAMES, reason="CHATSTREAM_TOKENIZERS names no folder with tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_prompts_equal_and_no_message_writes_a_control_token(name: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(Path(FOLDER) / name)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN
    expected = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert encode_messages(tokenizer, CHAT) == expected
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    hostile = "x" + "x".join(str(token) for token in tokenizer.all_special_tokens) + "x"
    ids, harmless = (
        encode_messages(tokenizer, [{"role": "user", "content": text}]) for text in (hostile, "x")
    )
    assert [i for i in ids if i in special] == [i for i in harmless if i in special]
    assert hostile.replace(" ", "") in tokenizer.decode(ids).replace(" ", "")
