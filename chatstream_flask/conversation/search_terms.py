"""Words of texts and of searches, the same in every store.

Words are letters and digits, without case. Scripts that have no spaces between words, such as Japanese, are
cut into overlapping pairs of characters, so that any part of a text is found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import NamedTuple

MAX_TERM_LEN = 64  # characters; longer words are known by their beginning
MAX_TERMS = 10_000  # of one text
MAX_SEARCH_TERMS = 16
UNSPACED = (
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u104e\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
)
RUN = re.compile(rf"([{UNSPACED}]+)|[^\W_{UNSPACED}]+")


class SearchTerm(NamedTuple):
    """A word that must be found."""

    text: str
    is_prefix: bool  # whether longer words that begin so are found, too


def terms_of(text: str) -> list[str]:
    """Return the different words of a text, in the order in which they first occur."""
    terms: dict[str, None] = {}
    for run, is_unspaced in _runs(text):
        parts = (run[i : i + 2] for i in range(len(run))) if is_unspaced else (run[:MAX_TERM_LEN],)
        terms.update(dict.fromkeys(parts))
        if len(terms) >= MAX_TERMS:
            break
    return list(terms)


def search_terms(words: str) -> list[SearchTerm]:
    """Return what all has to be in a text that is searched for; empty if the search has no letter or digit.

    Of the last word, which may not be complete yet, the beginning is enough if it has two letters.
    """
    terms: dict[SearchTerm, None] = {}
    runs = list(_runs(words))[:MAX_SEARCH_TERMS]
    for i, (run, is_unspaced) in enumerate(runs):
        if is_unspaced and len(run) > 1:
            terms.update(dict.fromkeys(SearchTerm(run[j : j + 2], False) for j in range(len(run) - 1)))
        else:
            is_prefix = is_unspaced or (len(run) > 1 and i == len(runs) - 1)
            terms[SearchTerm(run[:MAX_TERM_LEN], is_prefix)] = None
    return list(terms)[:MAX_SEARCH_TERMS]


def has_terms(terms: Collection[str], wanted: list[SearchTerm]) -> bool:
    """Return whether a text with these terms is one that is searched for."""
    known = set(terms)
    return all(
        text in known or (is_prefix and any(term.startswith(text) for term in known))
        for text, is_prefix in wanted
    )


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the words, and whether each is in a script without spaces."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    for found in RUN.finditer(normal):
        yield found.group(), found.group(1) is not None
