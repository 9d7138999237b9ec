"""Workload: what clients ask for in a round, and the workloads of the default run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from .prompts import Prompts

WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Texts:
    """Prompts of a round."""

    shared: str  # beginning of all of them, may be empty
    of_streams: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Streams that begin together; each sends its next request when it has its reply.

    One request per stream is a burst, several are a closed loop.
    """

    streams: int
    prompt_tokens: int
    new_tokens: int
    requests: int = 1  # per stream
    shared_tokens: int = 0  # at the beginning of every prompt of a round, computed before it

    @property
    def context_len(self) -> int:
        return self.prompt_tokens + self.new_tokens

    @property
    def title(self) -> str:
        shared = f" ({self.shared_tokens} shared)" if self.shared_tokens else ""
        load = f"closed loop of {self.requests}" if self.requests > 1 else "burst"
        return f"{self.streams} x {self.prompt_tokens}{shared} + {self.new_tokens}, {load}"

    @property
    def warm_up(self) -> Workload:
        """A short round, so that the next ones find everything allocated and tuned."""
        return replace(self, new_tokens=min(WARM_UP_TOKENS, self.new_tokens), requests=1)

    def texts(self, prompts: Prompts, random: Random) -> Texts:
        """Return new prompts, as servers keep what they computed."""
        shared = prompts.text(random, self.shared_tokens) if self.shared_tokens else ""
        return Texts(
            shared,
            [
                [prompts.text(random, self.prompt_tokens, shared) for _ in range(self.requests)]
                for _ in range(self.streams)
            ],
        )


def defaults(is_large: bool) -> list[Workload]:
    """Return the workloads of the default run; a large model has shorter replies and no 32 streams."""
    new_tokens = 32 if is_large else 64
    streams = (1, 4, 8, 16) if is_large else (1, 4, 8, 16, 32)
    short = [
        Workload(streams=n, prompt_tokens=32, new_tokens=new_tokens, requests=1 if is_large or n > 4 else 2)
        for n in streams
    ]
    return [
        *short,
        Workload(streams=4, prompt_tokens=512, new_tokens=new_tokens),
        Workload(streams=4, prompt_tokens=512, new_tokens=new_tokens, shared_tokens=480),
        Workload(streams=1, prompt_tokens=2048, new_tokens=new_tokens),
    ]
