"""Escaping of text that others wrote, for logs: it can neither forge a line nor control a terminal."""

from __future__ import annotations

import json


def escaped(text: str) -> str:
    r"""Return the text with JSON's escapes, such as `\n`, for all characters that are not printable.

    These are the control characters, line separators, marks that change the direction of text, and unpaired
    surrogates, which could not be encoded.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
