"""The text around calls whose arguments are JSON: one description, for writing calls and for grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class CallForm:
    """How a family writes calls, but for names and arguments."""

    before: str  # in front of a call's name
    middle: str  # between name and arguments
    after: str
    start: str = ""  # in front of the first call
    between: str | None = ""  # None: the model writes one call only
    end: str = ""
    json_key: str = ""  # key of the arguments, if a call is a JSON object and nothing else

    def write(self, calls: Sequence[tuple[str, Any]]) -> str:
        """Return the text of calls, which are pairs of name and arguments."""
        texts = (
            f"{self.before}{name}{self.middle}{json.dumps(arguments, ensure_ascii=False)}{self.after}"
            for name, arguments in calls
        )
        return self.start + (self.between or "").join(texts) + self.end

    def rule(
        self, functions: Mapping[str, str], tokens: Mapping[int, str], *, is_single: bool = False
    ) -> str:
        """Return a Lark expression for one or several calls.

        :param functions: names of functions, with the expressions for their arguments
        :param tokens: tokens that stand for their text and that no other text is encoded to
        :param is_single: allow one call only
        """
        calls = (
            [self.before + name + self.middle, arguments, self.after] for name, arguments in functions.items()
        )
        one = " | ".join(
            f"{terminals(before, tokens)} {arguments} {terminals(after, tokens)}"
            for before, arguments, after in calls
        )
        more = ""
        if self.between is not None and not is_single:
            more = f"({terminals(self.between, tokens)} ({one}))*"
        return f"{terminals(self.start, tokens)} ({one}) {more} {terminals(self.end, tokens)}"

    def behind(self, opener: str) -> CallForm:
        """Return the form of what follows the opener, up to the next opener."""
        if self.start:
            return replace(self, start=self.start.lstrip().removeprefix(opener))
        return replace(self, before=self.before.removeprefix(opener), between=None)


def object_form(
    opener: str, closer: str, arguments: str = "arguments", between: str | None = "\n"
) -> CallForm:
    """Return the form of calls that are an object each, between two texts."""
    json_key = "" if opener else arguments
    return CallForm(
        f'{opener}{{"name": "', f'", "{arguments}": ', f"}}{closer}", between=between, json_key=json_key
    )


def list_form(opener: str, closer: str = "", name: str = "name", arguments: str = "arguments") -> CallForm:
    """Return the form of calls that are a list of objects between two texts."""
    return CallForm(f'{{"{name}": "', f'", "{arguments}": ', "}", f"{opener}[", ", ", f"]{closer}")


def terminals(text: str, tokens: Mapping[int, str]) -> str:
    """Return a text as terminals of a Lark grammar; each of the tokens is one, whatever its text."""
    ids = {token: token_id for token_id, token in tokens.items()}
    pattern = "|".join(map(re.escape, sorted(ids, key=len, reverse=True)))
    parts = re.split(f"({pattern})", text) if pattern else [text]
    return " ".join(f"<[{ids[part]}]>" if part in ids else json.dumps(part) for part in parts if part)
