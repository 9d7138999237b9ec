"""Runner: what a generation thread needs of a model, real or mock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .detokenizer import TextDecoder
from .request import GenerationRequest
from .sequence import Chunk, Matcher, Sequence

NewIds = Callable[[], list[list[int]]]  # waits for them


class Runner(Protocol):
    """Computes the tokens of sequences. Belongs to one generation thread, which makes every call.

    Running sequences hold the slots 0 .. n-1 without a gap, so that row i of a batch is slot i.
    """

    eos_ids: frozenset[int]

    def open(self) -> None:
        """Takes memory, in the generation thread; raises ConfigError or UnsupportedModel."""

    def share_cores(self, num_busy: int) -> None:
        """So many generation threads have work now, this one among them: on CPU they share the cores."""

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        """Computes tokens of prompts, of different sequences; together no more than fit between two steps.

        What it returns is called once, before the next `prefill` or `decode`, for the new ids of each; none
        where its prompt goes on. Changes nothing of a sequence but `logprobs`: where its request asks for
        them, one is appended for each new id, here and in `decode`.
        """

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        """New ids of each that would else come with the next `decode`."""

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        """Computes the newest token of each (different slots, all decoding); new ids for each, often one.

        None where they come with the next call: by then the next token may be on its way as well. Where it
        speculates, `drafts` of a sequence are what it proposed: each one that was right is a new id more,
        whose predecessor has been computed too.
        """

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copies what slot `source` holds of its first `length` tokens into slot `target`."""

    def swap_slots(self, one: int, other: int, length: int) -> None:
        """Exchanges what two slots hold of their first `length` tokens."""

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        """A fresh ids-to-text decoder for one reply."""

    def matcher(self, grammar: str) -> Matcher:
        """A fresh one for one reply. Its masks count in `prefill` and `decode`; the caller lets it accept."""

    def close(self) -> None: ...
