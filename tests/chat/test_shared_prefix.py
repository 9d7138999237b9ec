"""What all conversations begin with has no word of any visitor."""

from __future__ import annotations

import pytest
from flask_fakes import PlainPrompt, ScriptedRunner, ScriptedSource

from chatstream_flask.chat.shared_prefix import ChatSharedPrefix
from chatstream_flask.prompts import ChatContent

SYSTEM = "You are a helpful assistant.|"


class WithSystem(PlainPrompt):
    def render(self, contents: list[ChatContent]) -> str:
        return SYSTEM + super().render(contents)


@pytest.mark.parametrize("message", [".", "..", "A", "A.", "hello"])
def test_the_shared_prefix_ends_before_the_first_message(message: str) -> None:
    """It had the message "." in it, so that `cached_tokens` told who else had sent one."""
    shared_prefix = ChatSharedPrefix(ScriptedSource(ScriptedRunner(), 1024), WithSystem)
    prompt = f"{SYSTEM}U:{message}|A:"
    assert shared_prefix.length([ord(char) for char in prompt]) == len(f"{SYSTEM}U:")
