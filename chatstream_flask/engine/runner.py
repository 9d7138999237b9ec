"""Runner: what a worker thread needs of a model, real or mock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .detokenizer import TextDecoder
from .request import GenerationRequest
from .sequence import Chunk, Matcher, Sequence

NewIds = Callable[[], list[list[int]]]  # waits for the ids


class Runner(Protocol):
    """Computes the tokens of sequences. Belongs to one worker thread, which makes all calls.

    Running sequences hold slots 0 to n-1 without a gap, so row i of a batch is slot i. New token ids are
    returned as one list per sequence; the id -1 means that the model found no valid token.
    """

    eos_ids: frozenset[int]
    keeps_prefixes: bool  # whether slots keep keys and values for later requests

    def open(self) -> None:
        """Allocate memory; called in the worker thread.

        :raises ConfigError: there is not enough memory for these settings
        :raises UnsupportedModel: the model cannot be served correctly
        """

    def share_cores(self, num_busy: int) -> None:
        """Divide the CPU cores among the `num_busy` worker threads that have work, this one included."""

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        """Compute prompt chunks, each of another sequence.

        The returned function waits for the new ids: none for a chunk whose prompt continues. The caller calls
        it once, before the next `prefill` or `decode`. Of a sequence nothing is changed but `logprobs`: where
        the request asks for them, one is appended for each new id, here and in `decode`; and, where it asks
        for `num_prompt_logprobs`, `prompt_logprobs`, which a chunk that is computed again replaces.
        """

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        """Return the new ids that would otherwise come with the next `decode`."""

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        """Compute the newest token of each sequence and return the new ids, often one for each.

        A sequence gets none if its id comes with the next call, when the token after it may be under way
        already. With speculation the runner sets `drafts` of each sequence; every accepted draft is one more
        new id, and the tokens before the last new id have been computed too.
        """

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cache positions from one slot to another."""

    def swap_slots(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` cache positions of two slots."""

    def forget(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended; its slot may still be copied."""

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        """Return a new decoder for one reply."""

    def matcher(self, grammar: str) -> Matcher:
        """Return a new matcher for one reply.

        The runner applies its masks in `prefill` and `decode`; the caller advances it by each new token.
        """

    def close(self) -> None:
        """Free the memory."""
