"""Texts of the mock replies, and their division into tokens."""

from __future__ import annotations

import re

ROUND = (
    "1. Hello! This is a mock reply, so no model was asked.",
    "2. Every word you see here arrives as a token of its own.",
    "3. The queue, the threads and the stream are the real ones.",
    "4. Only the thinking is missing.",
    "5. Ask me anything; I will answer with the next line of my list.",
    "6. This is half of my list already.",
    "7. You can open a second window to watch two replies run side by side.",
    "8. A third window may have to wait for its turn.",
    "9. If you press stop, the slot is free again at the next step.",
    "10. Reload the page, and our conversation is still here.",
    "11. One more line and I begin again.",
    "12. That was all I have to say, so next comes line one.",
)

LONG = """\
At the end of the harbour stood a small lighthouse that nobody needed any more. The ships had maps that \
talked, and they sailed by night as by day. Still, every evening, old Mara climbed the hundred and nine \
steps and lit the lamp.

"Who is it for?" asked the boy who brought her bread.

"For whoever looks up," she said.

One autumn a storm came over the sea and took the power from the whole coast. The talking maps fell \
silent. In the town people sat in the dark and counted the seconds between lightning and thunder. The boy \
thought of the lamp, which burned oil and needed no power lines. He ran along the pier with his coat over \
his head, and found Mara at the door, holding her knee.

"I slipped," she said. "You will have to go."

He climbed the steps and counted them aloud, so that he would not hear the wind. At the top he lit the \
wick, as he had seen her do it, and turned the great glass until the beam lay on the water.

Far out, a fishing boat had been going in circles. Its crew saw one star that stood below the clouds, and \
they steered for it. They came in at dawn, wet and cold and laughing.

Nobody closed the lighthouse after that night. The boy, who is a man now, lights the lamp every evening. \
When visitors ask him who it is for, he tells them to look up."""

REASONING = """\
<think>
A message has come, and I am to answer it. I am only a mock, so there is nothing that I could know. But I \
can show how it looks when a model reasons first: this text comes before the answer, apart from it, and \
whoever does not want to wait may ask for the answer now. Let me think it over once more. Yes, the next \
line of my list it is."""
CLOSING = "\n</think>\n\n"

# Scripts without spaces between words: one character is one token.
SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u3000-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
TOKEN = re.compile(rf"\s*[{SPACELESS}]|\s*[^\s{SPACELESS}]+|\s+")


def split_mock_text(text: str) -> list[str]:
    """Divide a text into words, or characters of scripts without spaces, each with the space before it.

    Joined, these tokens are the text.
    """
    return TOKEN.findall(text)
