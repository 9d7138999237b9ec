"""The architecture is one list: a module imports only what stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "chatstream_flask"
ROOT = Path(__file__).parent.parent / PACKAGE

LAYERS = [  # a module, or a package with all its modules
    "errors",
    "config",
    "prompts",
    "prompts.presets",
    "demo_model",
    # generation without HTTP
    "engine.__init__",
    "engine.grammar_check",
    "engine.grammar",
    "engine.grammar_matcher",
    "engine.request",
    "engine.visitor",
    "engine.turns",
    "engine.request_queue",
    "engine.detokenizer",
    "engine.held_logprobs",
    "engine.prompt_lookup",
    "engine.sequence",
    "engine.runner",
    "engine.remains",
    "engine.scheduler",
    "engine.histogram",
    "engine.thread_stats",
    "engine.engine_stats",
    "engine.generation_thread",
    "engine.prefill_pace",
    "engine.worker",
    "engine.watchdog",
    "engine.worker_pool",
    "engine.delivery",
    "engine.engine",
    "engine.mock_text",
    "engine.mock_runner",
    # a model's tokens
    "engine.text_decoder",
    "engine.placement",
    "engine.kv_cache",
    "engine.kv_memory",
    "engine.attention_mask",
    "engine.slot_model",
    "engine.host_buffer",
    "engine.graph_replay",
    "engine.packed_prefill",
    "engine.logits_check",
    "engine.model_check",
    "engine.linear",
    "engine.packing",
    "engine.fused_parts",
    "engine.fused_decoder",
    "engine.fuse",
    "engine.native",
    "engine.native_decoder",
    "engine.triton_kernels",
    "engine.triton_operations",
    "engine.triton_decoder",
    "engine.prepared_model",
    "engine.seen_tokens",
    "engine.token_counts",
    "engine.token_masks",
    "engine.candidates",
    "engine.logprobs",
    "engine.score_rules",
    "engine.sampler",
    "engine.decode_step",
    "engine.lookahead",
    "engine.core_choice",
    "engine.draft_choice",
    "engine.speculation",
    "engine.model_runner",
    # the Flask side
    "devices",
    "model_source",
    "capacity.__init__",
    "capacity.step_costs",
    "capacity.profile",
    "capacity.calibration",
    "capacity.model_size",
    "capacity.timed_runner",
    "capacity.simulation",
    "capacity.workload",
    "capacity.load_point",
    "capacity.plan",
    "capacity.load_client",
    "capacity.serving_costs",
    "capacity.check",
    "capacity.report",
    "capacity.picture",
    "conversation",
    "request_handler",
    "disconnect",
    "wire_format",
    "stream",
    "chat_request",
    "problem",
    "settings",
    "monitoring",
    "replies",
    "completion",
    "app_state",
    "conversations",
    "request_body",
    "reply_response",
    "server_check",
    "shared_prefix",
    "admission",
    "webui",
    "status_page",
    "views",
    "openai_api",
    "extension",
    "serving",
    "__init__",
    "__main__",
    "examples",
]
WEB = {"flask", "flask_session", "waitress", "werkzeug"}
MODELS = {"torch", "transformers"}

MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py"))


def layer_of(module: str) -> str | None:
    package = module.rpartition(".")[0]
    return next((name for name in (module, package) if name in LAYERS), None)


def nodes(tree: ast.AST, *, in_functions: bool) -> Iterator[ast.AST]:
    """All below, without what is only for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and not in_functions:
            continue
        yield node
        yield from nodes(node, in_functions=in_functions)


def imports_of(module: str, *, in_functions: bool = True) -> set[str]:
    """Full names; our own begin with the package's."""
    package = [PACKAGE, *module.split(".")[:-1]]
    names: set[str] = set()
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    for node in nodes(tree, in_functions=in_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            tails = [node.module] if node.module else [alias.name for alias in node.names]
            names |= {".".join([*base, tail]) for tail in tails}
    return names


def top_names(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_stands_above_it(module: str) -> None:
    layer = layer_of(module)
    assert layer, f"{module} is in no layer"
    above = LAYERS[: LAYERS.index(layer)]
    for name in imports_of(module):
        if name.startswith(PACKAGE):
            target = layer_of(name.removeprefix(PACKAGE).removeprefix(".") or "__init__")
            assert target == layer or target in above, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("engine.")])
def test_engine_knows_no_flask(module: str) -> None:
    assert not top_names(imports_of(module)) & WEB


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith(("engine.", "examples."))])
def test_flask_side_loads_no_torch(module: str) -> None:
    assert not top_names(imports_of(module, in_functions=False)) & MODELS


def test_layers_name_each_module_once() -> None:
    assert len(LAYERS) == len(set(LAYERS))
