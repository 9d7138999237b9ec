"""Tokens that were added to a tokenizer's vocabulary, read once for each tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from .token_finder import TokenFinder

MAX_KEPT = 8  # variants of one tokenizer: its template may change, and prompt classes want different tokens


class AddedTokens:
    """The added tokens of a tokenizer that are words."""

    def __init__(self, tokenizer: Any, wanted: tuple[str, ...]) -> None:
        """Read the tokenizer.

        :param wanted: texts whose tokens are left out
        """
        added = {
            token.content: (token_id, token.special)
            for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
            if _is_word(token.content) and not any(token.content in text for text in wanted)
        }
        self.ids = {content: token_id for content, (token_id, _) in added.items()}
        self.finder = TokenFinder(added)
        named = {content for template in _templates(tokenizer) for _, content in self.finder.find(template)}
        for attribute in ("all_special_tokens", "chat_control_tokens"):
            named |= set(getattr(tokenizer, attribute, None) or ()) & added.keys()
        # special tokens, and those that the chat template writes
        self.control = named | {content for content, (_, is_special) in added.items() if is_special}


_kept: WeakKeyDictionary[Any, dict[Any, AddedTokens]] = WeakKeyDictionary()


def added_tokens_of(tokenizer: Any, wanted: Iterable[str] = ()) -> AddedTokens:
    """Return the added tokens; they are read again only if the tokenizer has got another template.

    Tokens that are added after the first call are not seen: even counting them takes milliseconds.
    """
    wanted = tuple(wanted)
    key = (*_templates(tokenizer), wanted)
    try:
        variants = _kept.setdefault(tokenizer, {})
    except TypeError:  # without a hash or weak references
        return AddedTokens(tokenizer, wanted)
    if (tokens := variants.get(key)) is None:
        if len(variants) >= MAX_KEPT:
            variants.clear()
        tokens = variants[key] = AddedTokens(tokenizer, wanted)
    return tokens


def _templates(tokenizer: Any) -> Iterator[str]:
    template = getattr(tokenizer, "chat_template", None)
    yield from map(str, template.values() if isinstance(template, dict) else [template or ""])


def _is_word(token: str) -> bool:
    return len(token) > 1 and not token.replace("▁", " ").isspace()
