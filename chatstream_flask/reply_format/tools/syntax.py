"""The ways in which model families write tool calls, and which of them a model uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import gemma
from .readers import (
    DEEPSEEK,
    KIMI,
    Reader,
    arguments_of,
    deepseek,
    function_tag,
    json_calls,
    kimi,
    mistral,
    python_calls,
    python_tag,
)
from .tagged_parameters import TaggedParameters

Call = tuple[str, dict[str, Any]]  # name and arguments
WriteCalls = Callable[[Sequence[Call]], str]


def write_tagged(calls: Sequence[Call]) -> str:
    """Return calls as Hermes, Qwen and many others write them."""
    return "\n".join(f"<tool_call>\n{_json({'name': n, 'arguments': a})}\n</tool_call>" for n, a in calls)


def write_list(opener: str, closer: str = "") -> WriteCalls:
    """Return a function that writes calls as a list between two texts."""
    return lambda calls: opener + _json([{"name": n, "arguments": a} for n, a in calls]) + closer


def write_python(calls: Sequence[Call]) -> str:
    """Return calls as LFM2 writes them."""
    written = (f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})" for name, given in calls)
    return f"<|tool_call_start|>[{', '.join(written)}]<|tool_call_end|>"


@dataclass(frozen=True)
class ToolSyntax:
    """How a model family writes tool calls."""

    openers: Mapping[str, Reader]  # texts that begin calls, with what reads on from there
    closers: tuple[str, ...] = ()  # texts behind calls
    inner: tuple[str, ...] = ()  # further texts within calls
    bare: Reader | None = None  # reads calls that begin a reply with a brace
    write: WriteCalls = write_tagged  # for histories, if the chat template does not write calls
    has_short_ids: bool = False  # whether the chat template demands ids of nine letters and digits

    @property
    def markers(self) -> frozenset[str]:
        """Texts that must stay in a reply's text if they are special tokens."""
        return frozenset({*self.openers, *self.closers, *self.inner})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


QWEN_XML = TaggedParameters(
    call="<function=",
    name_end=">",
    call_end="</function>",
    key="<parameter=",
    key_end=">",
    value="",
    value_end="</parameter>",
    close="</tool_call>",
)
SEED = replace(QWEN_XML, close="</seed:tool_call>")
GLM_XML = TaggedParameters(
    call="",
    name_end="",
    call_end="</tool_call>",
    key="<arg_key>",
    key_end="</arg_key>",
    value="<arg_value>",
    value_end="</arg_value>",
    has_line_ends=False,
)


def _dsml(section: str) -> TaggedParameters:
    return TaggedParameters(
        call='<｜DSML｜invoke name="',
        name_end='">',
        call_end="</｜DSML｜invoke>",
        key='<｜DSML｜parameter name="',
        key_end='" string="',
        value="",
        value_end="</｜DSML｜parameter>",
        flag_end='">',
        close=f"</｜DSML｜{section}>",
        has_line_ends=False,
    )


HERMES = ToolSyntax({"<tool_call>": json_calls("</tool_call>")}, ("</tool_call>",))
LLAMA = ToolSyntax(
    {"<|python_tag|>": python_tag, "<function=": function_tag},
    bare=json_calls(is_known=True),
)
DSML_SECTIONS = ("function_calls", "tool_calls")

# Texts of which a chat template contains all, and the syntax of its model; the first that fits holds.
SYNTAXES: tuple[tuple[tuple[str, ...], ToolSyntax], ...] = (
    (
        ("DSML｜",),
        ToolSyntax(
            {f"<｜DSML｜{name}>": _dsml(name) for name in DSML_SECTIONS},
            tuple(f"</｜DSML｜{name}>" for name in DSML_SECTIONS),
        ),
    ),
    (
        (DEEPSEEK[1],),
        ToolSyntax(
            dict.fromkeys(DEEPSEEK, deepseek),
            ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
            ("<｜tool▁sep｜>",),
        ),
    ),
    (
        (KIMI[1],),
        ToolSyntax(
            dict.fromkeys(KIMI, kimi),
            ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
            ("<|tool_call_argument_begin|>",),
        ),
    ),
    (
        ("[TOOL_CALLS]",),
        ToolSyntax({"[TOOL_CALLS]": mistral}, inner=("[ARGS]", "[CALL_ID]"), has_short_ids=True),
    ),
    (("<|tool_call>call:",), ToolSyntax({gemma.OPENER: gemma.gemma}, (gemma.CLOSER,), (gemma.QUOTE,))),
    (("<|function_call|>",), ToolSyntax({"<|function_call|>": json_calls()})),  # GigaChat
    (("<arg_key>",), ToolSyntax({"<tool_call>": GLM_XML}, ("</tool_call>",))),
    (("seed:tool_call",), ToolSyntax({"<seed:tool_call>": SEED, "<function=": SEED}, ("</seed:tool_call>",))),
    (("<parameter=",), ToolSyntax({"<tool_call>": QWEN_XML, "<function=": QWEN_XML}, ("</tool_call>",))),
    (
        ("<|START_ACTION|>",),
        ToolSyntax({"<|START_ACTION|>": json_calls("<|END_ACTION|>")}, ("<|END_ACTION|>",)),
    ),
    (("Action:", "tool_name"), ToolSyntax({"Action:": json_calls("```", is_known=True, fence="```json")})),
    (
        ("<|tool_call|>",),  # Granite
        ToolSyntax(
            {"<|tool_call|>": json_calls(), "<tool_call>": json_calls("</tool_call>")},
            ("</tool_call>",),
            write=write_list("<|tool_call|>"),
        ),
    ),
    (
        ("<|tool|>",),  # Phi-4
        ToolSyntax(
            {"<|tool_call|>": json_calls("<|/tool_call|>"), "functools": json_calls()},
            ("<|/tool_call|>",),
            write=write_list("<|tool_call|>", "<|/tool_call|>"),
        ),
    ),
    (("functools",), ToolSyntax({"functools": json_calls()}, write=write_list(" functools"))),
    (("<tool_calls>",), ToolSyntax({"<tool_calls>": json_calls("</tool_calls>")}, ("</tool_calls>",))),
    (("<tool_call>",), HERMES),
    (
        ("List of tools: ",),  # LFM2
        ToolSyntax(
            {"<|tool_call_start|>": python_calls("<|tool_call_end|>")},
            ("<|tool_call_end|>",),
            write=write_python,
        ),
    ),
    (("<|start_header_id|>", "tools"), LLAMA),
    (("<|header_start|>", "tools"), LLAMA),  # Llama 4
)


def forced_syntax(names: Sequence[str]) -> ToolSyntax:
    """Return how a reply is written that must be a call of one of these functions.

    With one it is its arguments, with several an object with "name" and "arguments".
    """
    return ToolSyntax({}, bare=arguments_of(names[0]) if len(names) == 1 else json_calls(is_known=True))


def find_tool_syntax(template: str) -> ToolSyntax:
    """Return how the model of a chat template writes tool calls; Hermes' way if the template has no sign."""
    return next((syntax for signs, syntax in SYNTAXES if all(sign in template for sign in signs)), HERMES)
