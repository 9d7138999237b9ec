"""Prompts: texts of an exact number of tokens, made of words that are one token each."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

WORD = re.compile("[a-z]{2,}")
FEWEST_WORDS = 16


class Prompts:
    """Makes random texts that the model's tokenizer cuts into as many tokens as are asked for."""

    def __init__(self, folder: Path) -> None:
        """Read a tokenizer.

        :raises ValueError: too few words are one token both at the beginning of a text and after a space
        """
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._num_special = self._num_tokens("")  # such as one that begins each text
        self._words = self._whole_words()
        if len(self._words) < FEWEST_WORDS:
            raise ValueError(f"the tokenizer in {folder} has too few words that are one token each")

    def text(self, random: Random, num_tokens: int, after: str = "") -> str:
        """Return a text of this many tokens; `after` is how it begins, and counts.

        :raises ValueError: there is no such text
        """
        num_words = num_tokens - (self._num_tokens(after) if after else self._num_special)
        words = " ".join(random.choice(self._words) for _ in range(num_words))
        text = f"{after} {words}" if after and words else after or words
        if self._num_tokens(text) != num_tokens:
            raise ValueError(f"a text of {num_tokens} tokens became {self._num_tokens(text)} tokens")
        return text

    def _num_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    def _whole_words(self) -> list[str]:
        texts = self._tokenizer.decode_batch([[i] for i in range(self._tokenizer.get_vocab_size())])
        candidates = sorted({text.strip() for text in texts if WORD.fullmatch(text.strip())})
        alone = self._tokenizer.encode_batch(candidates)
        twice = self._tokenizer.encode_batch([f"{word} {word}" for word in candidates])
        one, two = self._num_special + 1, self._num_special + 2
        return [
            word
            for word, first, both in zip(candidates, alone, twice, strict=True)
            if (len(first.ids), len(both.ids)) == (one, two)
        ]
