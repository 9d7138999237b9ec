"""Markers: fixed strings in a reply's text, such as tags, which may arrive in pieces."""

from __future__ import annotations

# These begin tool calls, also within reasoning.
APERTUS_CALLS = "<|tools_prefix|>"
KIMI_CALLS = "<|tool_calls_section_begin|>"


def held_len(text: str, *markers: str) -> int:
    """Return the length of the longest end of `text` that may still become one of the markers."""
    longest = min(len(text), max(map(len, markers), default=1) - 1)
    starts = range(len(text) - longest, len(text))
    return next((len(text) - i for i in starts if any(m.startswith(text[i:]) for m in markers)), 0)


def may_become(text: str, marker: str) -> bool:
    """Return whether `text` is the beginning of the marker, and not yet all of it."""
    return text != marker and marker.startswith(text)
