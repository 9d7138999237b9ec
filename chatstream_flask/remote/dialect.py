"""How engines are asked for tokens over HTTP: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Protocol

from ..config import MULTIPLICATIVE, SamplingParams
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from ..errors import BadRequest
from .format import schema_of


class ProtocolError(Exception):
    """An engine's answer is not what its dialect says, or tells of a failure."""


class Part(NamedTuple):
    """Newly generated tokens."""

    token_ids: list[int]
    logprobs: list[TokenLogprob]  # in the order of the tokens; they may come later than these
    end: Literal["stop", "length"] | None = None  # why the engine ended the reply


class Reader(Protocol):
    """Reads the events of one stream."""

    def read(self, data: bytes) -> Part:
        """Return what one event says.

        :param data: its JSON
        :raises ProtocolError: it is an error, or not of this dialect
        """


class Dialect(Protocol):
    """The protocol of one kind of engine."""

    @property
    def path(self) -> str:
        """The path of its URL."""

    def body(
        self,
        prompt_ids: Sequence[int],
        request: GenerationRequest,
        max_tokens: int,
        seed: int | None,
        schema: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the body of the request for a streamed reply.

        :param schema: JSON schema that all that comes conforms to
        """

    def reader(self) -> Reader:
        """Return a reader for a new stream."""

    def check(self, params: SamplingParams) -> None:
        """Raise BadRequest for parameters that the engine does not have."""


def seed_at(seed: int, position: int) -> int:
    """Return the seed for the tokens from a position of the reply on, below 2 ** 31.

    The first tokens have the seed of the request. An engine that continues the reply of another needs a new
    one, or it would draw the random numbers of the first tokens again.
    """
    if not position:
        return seed % 2**31
    digest = blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


def check_common(params: SamplingParams) -> None:
    """Raise BadRequest for parameters that no engine of another kind has."""
    if params.repetition_penalty is not None and params.repetition_penalty_method != MULTIPLICATIVE:
        raise BadRequest(
            f"repetition_penalty_method must be '{MULTIPLICATIVE}': other engines have no other method"
        )
    if params.bad_words_ids:
        raise BadRequest("bad_words are not supported with an engine that is reached over HTTP")
    if params.grammar is not None and schema_of(params.grammar) is None:
        raise BadRequest(
            "with an engine that is reached over HTTP, the format of a reply can only be a JSON schema, and "
            "neither tools with a format nor strict functions are supported"
        )


def session_of(request: GenerationRequest) -> str | None:
    """Return a name for the conversation that tells nothing about it; None if it has none."""
    owner = request.cache_owner
    return None if owner is None else blake2b(owner.encode(), digest_size=12).hexdigest()
