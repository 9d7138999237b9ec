"""Entry: description of a contender, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass

from .dialect import CHAT, COMPLETIONS, Dialect

ENGINE = "engine"  # baseline of the comparison


@dataclass(frozen=True)
class Entry:
    """One contender that can be chosen on the command line."""

    what: str
    module: str
    class_name: str
    dialect: Dialect | None = None  # None: without HTTP
    is_on_cuda: bool = True
    needs_files: bool = False
    needs_model_name: bool = False


ENTRIES = {
    ENGINE: Entry("this project's engine, no HTTP", "engine", "EngineContender"),
    "waitress": Entry("this project under waitress", "waitress", "WaitressContender", CHAT),
    "generate": Entry(
        "model.generate in a thread per request, Flask under waitress", "generate", "GenerateContender", CHAT
    ),
    "batching": Entry("transformers' continuous batching, no HTTP", "batching", "BatchingContender"),
    "serve": Entry(
        "transformers serve --continuous-batching",
        "serve",
        "ServeContender",
        COMPLETIONS,
        is_on_cuda=False,
        needs_files=True,
        needs_model_name=True,
    ),
    "llama.cpp": Entry(
        "llama.cpp through llama-cpp-python, no HTTP",
        "llama_cpp",
        "LlamaCppContender",
        is_on_cuda=False,
        needs_files=True,
    ),
}
