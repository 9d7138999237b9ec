"""The package is a list of rooms, and a module imports only from its own room and from rooms above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "chatstream_flask"
ROOT = Path(__file__).parent.parent / PACKAGE

ROOMS = [  # top-level modules and packages; each may import what stands above it
    "errors",
    "config",
    "settings",
    "client",
    "prompts",
    "grammar",
    "engine",
    "mock",
    "inference",
    "remote",
    "reply_format",
    "http",
    "conversation",
    "model_source",
    "monitoring",
    "nodes",
    "hooks",
    "chat",
    "webui",
    "status_page",
    "openai_api",
    "openapi",
    "views",
    "extension",
    "serving",
    "demo_model",
    "capacity",
    "cli",
    "__init__",
    "__main__",
    "examples",
]
MODEL_ROOM = "inference"  # the only one that may import these
MODEL_LIBRARIES = {"torch", "transformers", "triton", "accelerate"}
ROOMS_WITHOUT_WEB = set(ROOMS[: ROOMS.index("http")]) - {"settings"}
WEB_LIBRARIES = {"flask", "flask_session", "waitress", "werkzeug", "gunicorn"}
PROGRAMS = {"examples"}  # written as users write theirs, who load models themselves

MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imported_by(module: str) -> Iterator[str]:
    """Yield the full name of everything imported: in functions and for the type checker, too."""
    package = [PACKAGE, *module.split(".")[:-1]]
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def our_module(name: str) -> str | None:
    """Return the module of this package that defines an imported name; None for another package."""
    if name.partition(".")[0] != PACKAGE:
        return None
    parts = name.split(".")[1:]
    for candidate in (parts, parts[:-1]):
        for tail in ([], ["__init__"]):
            if (module := ".".join([*candidate, *tail])) in MODULES:
                return module
    raise AssertionError(f"{name} is in no module")


def imported_modules(module: str) -> set[str]:
    return {found for name in imported_by(module) if (found := our_module(name)) not in (None, module)}


IMPORTS = {module: imported_modules(module) for module in MODULES}


def test_rooms_are_all_there_is() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_room_and_those_above(module: str) -> None:
    allowed = ROOMS[: ROOMS.index(room_of(module)) + 1]
    assert [name for name in sorted(IMPORTS[module]) if room_of(name) not in allowed] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = dict(IMPORTS)
    while leaves := [module for module, names in left.items() if not names & left.keys()]:
        for module in leaves:
            del left[module]
    assert sorted(left) == []


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) not in {MODEL_ROOM, *PROGRAMS}])
def test_only_inference_imports_torch(module: str) -> None:
    assert not {name.partition(".")[0] for name in imported_by(module)} & MODEL_LIBRARIES


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) in ROOMS_WITHOUT_WEB])
def test_engine_and_inference_know_no_web_framework(module: str) -> None:
    assert not {name.partition(".")[0] for name in imported_by(module)} & WEB_LIBRARIES
