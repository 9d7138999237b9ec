"""The package is a list of rooms, and a module imports only from its own room and from rooms above it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

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


@cache
def imported_by(module: str) -> list[str]:
    """Return the full name of everything imported: in functions and for the type checker, too."""
    package = [PACKAGE, *module.split(".")[:-1]]
    names: list[str] = []
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += [node.module] if node.module else []
            names += [".".join([*base, alias.name]) for alias in node.names]
    return names


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


@cache
def imports() -> dict[str, set[str]]:
    """Return the modules of this package that each of them imports."""
    return {
        module: {found for name in imported_by(module) if (found := our_module(name)) not in (None, module)}
        for module in MODULES
    }


def importing(libraries: set[str], rooms: set[str]) -> list[str]:
    """Return the modules in these rooms that import one of these libraries."""
    return [
        f"{module} imports {name}"
        for module in MODULES
        if room_of(module) in rooms
        for name in imported_by(module)
        if name.partition(".")[0] in libraries
    ]


def test_rooms_are_all_there_is() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


def test_a_module_imports_only_from_its_room_and_those_above() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if ROOMS.index(room_of(name)) > ROOMS.index(room_of(module))
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = dict(imports())
    while leaves := [module for module, names in left.items() if not names & left.keys()]:
        for module in leaves:
            del left[module]
    assert sorted(left) == []


def test_only_inference_imports_torch() -> None:
    assert importing(MODEL_LIBRARIES, set(ROOMS) - {MODEL_ROOM, *PROGRAMS}) == []


def test_engine_and_inference_know_no_web_framework() -> None:
    assert importing(WEB_LIBRARIES, ROOMS_WITHOUT_WEB) == []
