"""Entrant: a server at one precision, and which ones meet in a group."""

from __future__ import annotations

from dataclasses import dataclass

from .servers.chatstream import Chatstream
from .servers.generate import Generate
from .servers.llama_server import LlamaServer
from .servers.server import Server
from .servers.transformers_serve import TransformersServe
from .servers.vllm import Vllm

SUBJECT = "chatstream"  # to which the others are compared
SERVERS: dict[str, type[Server]] = {
    SUBJECT: Chatstream,
    "vllm": Vllm,
    "llama-server": LlamaServer,
    "transformers": TransformersServe,
    "generate": Generate,
}
DEFAULT = {"cpu": [SUBJECT, "vllm", "llama-server"], "cuda": [SUBJECT, "generate"]}
WHAT = {
    SUBJECT: "this project: serve",
    "vllm": "vLLM's CPU build, in an environment of its own",
    "llama-server": "llama.cpp's server (xllamacpp), the model converted to GGUF",
    "transformers": "transformers serve --continuous-batching",
    "generate": "model.generate in a thread per request, Flask under waitress",
}
BEST = "best"
PRECISIONS = ("float32", "bfloat16", "float16")
GROUPS = (*PRECISIONS, BEST)
OF_BEST = {  # what people run each with, where speed and memory matter most
    SUBJECT: ("q8_0", "q4"),
    "vllm": ("bfloat16",),
    "llama-server": ("q8_0", "q4"),
}


@dataclass(frozen=True)
class Entrant:
    """One column of the tables."""

    server: str
    precision: str

    @property
    def title(self) -> str:
        return f"{self.server} {self.precision}"

    @property
    def needs_gguf(self) -> bool:
        return SERVERS[self.server].needs_gguf or self.precision not in PRECISIONS

    def rival(self, others: list[Entrant]) -> Entrant | None:
        """Return the entrant of this project to compare with, of the same precision if there is one."""
        ours = [other for other in others if other.server == SUBJECT]
        return next((one for one in ours if one.precision == self.precision), ours[0] if ours else None)


def entrants(group: str, servers: list[str], device: str) -> list[Entrant]:
    """Return the entrants of a group, in the order of SERVERS."""
    return [
        Entrant(name, precision)
        for name, kind in SERVERS.items()
        if name in servers and device.partition(":")[0] in kind.devices
        for precision in (OF_BEST.get(name, ()) if group == BEST else (group,))
    ]
