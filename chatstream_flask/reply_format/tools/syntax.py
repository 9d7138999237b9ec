"""The ways in which model families write tool calls, and which of them a model uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...prompts.message_forms import CALL_TAGS as TAGS
from ..harmony import CALL, TOOL_CALL
from ..markers import APERTUS_CALLS
from . import gemma
from .call_form import CallForm, list_form, object_form
from .json_calls import Reader, arguments_of, json_calls
from .python_calls import python_calls, python_tag
from .readers import DEEPSEEK, KIMI, apertus, deepseek, function_tag, harmony, kimi, mistral
from .tagged_parameters import TaggedParameters


@dataclass(frozen=True)
class ToolSyntax:
    """How a model family writes tool calls."""

    openers: Mapping[str, Reader]  # texts that begin calls, with what reads on from there
    closers: tuple[str, ...] = ()  # texts behind calls
    inner: tuple[str, ...] = ()  # further texts within calls
    bare: Reader | None = None  # reads calls that begin a reply with a brace
    form: CallForm | None = None  # in which calls are written; None: not with JSON
    has_short_ids: bool = False  # whether the chat template demands ids of nine letters and digits

    @property
    def markers(self) -> frozenset[str]:
        """Texts that must stay in a reply's text if they are special tokens."""
        return frozenset({*self.openers, *self.closers, *self.inner})


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


def _mistral(form: CallForm) -> ToolSyntax:
    inner = ("[ARGS]", "[CALL_ID]")
    return ToolSyntax({"[TOOL_CALLS]": mistral}, inner=inner, form=form, has_short_ids=True)


HERMES_FORM = object_form(f"{TAGS[0]}\n", f"\n{TAGS[1]}")
HERMES = ToolSyntax({TAGS[0]: json_calls(TAGS[1])}, (TAGS[1],), form=HERMES_FORM)
LLAMA = ToolSyntax(
    {"<|python_tag|>": python_tag, "<function=": function_tag},
    bare=json_calls(is_known=True),
    form=object_form("", "", "parameters", between=None),  # its template takes one call at a time
)
DEEPSEEK_CLOSERS = ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")
HARMONY = ToolSyntax({TOOL_CALL: harmony}, (CALL,))
DSML_SECTIONS = ("function_calls", "tool_calls")


def _deepseek(before: str, middle: str, after: str) -> ToolSyntax:
    begin, (end, end_all) = DEEPSEEK, DEEPSEEK_CLOSERS
    form = CallForm(begin[1] + before, middle, after + end, begin[0], end=end_all)
    return ToolSyntax(dict.fromkeys(begin, deepseek), DEEPSEEK_CLOSERS, ("<｜tool▁sep｜>",), form=form)


# The syntax of a model is that of the first row whose texts all occur in its chat template.
SYNTAXES: tuple[tuple[tuple[str, ...], ToolSyntax], ...] = (
    (
        ("DSML｜",),
        ToolSyntax(
            {f"<｜DSML｜{name}>": _dsml(name) for name in DSML_SECTIONS},
            tuple(f"</｜DSML｜{name}>" for name in DSML_SECTIONS),
        ),
    ),
    ((DEEPSEEK[1], "```json"), _deepseek("function<｜tool▁sep｜>", "\n```json\n", "\n```")),  # V3 and R1
    ((DEEPSEEK[1],), _deepseek("", "<｜tool▁sep｜>", "")),
    (
        (KIMI[1],),
        ToolSyntax(
            dict.fromkeys(KIMI, kimi),
            ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
            ("<|tool_call_argument_begin|>",),
            form=CallForm(
                f"{KIMI[1]}functions.",
                ":0<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
                KIMI[0],
                between=None,  # the next would have another number
                end="<|tool_calls_section_end|>",
            ),
        ),
    ),
    (
        (APERTUS_CALLS,),
        ToolSyntax(
            {APERTUS_CALLS: apertus},
            ("<|tools_suffix|>",),
            form=CallForm('{"', '": ', "}", f"{APERTUS_CALLS}[", ", ", "]<|tools_suffix|>"),
        ),
    ),
    (("[TOOL_CALLS]", "[ARGS]"), _mistral(CallForm("[TOOL_CALLS]", "[ARGS]", ""))),
    (("[TOOL_CALLS]",), _mistral(list_form("[TOOL_CALLS]"))),
    (("<|tool_call>call:",), ToolSyntax({gemma.OPENER: gemma.gemma}, (gemma.CLOSER,), (gemma.QUOTE,))),
    (
        ("<|function_call|>",),  # GigaChat
        ToolSyntax({"<|function_call|>": json_calls()}, form=object_form("<|function_call|>", "")),
    ),
    (("<arg_key>",), ToolSyntax({TAGS[0]: GLM_XML}, (TAGS[1],), form=HERMES_FORM)),
    (
        ("seed:tool_call",),
        ToolSyntax(
            {"<seed:tool_call>": SEED, "<function=": SEED},
            (SEED.close,),
            form=object_form("<seed:tool_call>\n", f"\n{SEED.close}"),
        ),
    ),
    (
        ("<parameter=",),
        ToolSyntax({TAGS[0]: QWEN_XML, "<function=": QWEN_XML}, (TAGS[1],), form=HERMES_FORM),
    ),
    (
        ("<|START_ACTION|>",),
        ToolSyntax(
            {"<|START_ACTION|>": json_calls("<|END_ACTION|>")},
            ("<|END_ACTION|>",),
            form=list_form("<|START_ACTION|>", "<|END_ACTION|>", "tool_name", "parameters"),
        ),
    ),
    (
        ("Action:", "tool_name"),
        ToolSyntax(
            {"Action:": json_calls("```", is_known=True, fence="```json")},
            form=list_form("Action: ```json\n", "```", "tool_name", "parameters"),
        ),
    ),
    (
        ("<|tool_call|>",),  # Granite
        ToolSyntax(
            {"<|tool_call|>": json_calls(), TAGS[0]: json_calls(TAGS[1])},
            (TAGS[1],),
            form=list_form("<|tool_call|>"),
        ),
    ),
    (
        ("<|tool|>",),  # Phi-4
        ToolSyntax(
            {"<|tool_call|>": json_calls("<|/tool_call|>"), "functools": json_calls()},
            ("<|/tool_call|>",),
            form=list_form("<|tool_call|>", "<|/tool_call|>"),
        ),
    ),
    (("functools",), ToolSyntax({"functools": json_calls()}, form=list_form(" functools"))),
    (
        ("<tool_calls>",),
        ToolSyntax(
            {"<tool_calls>": json_calls("</tool_calls>")},
            ("</tool_calls>",),
            form=list_form("<tool_calls>", "</tool_calls>"),
        ),
    ),
    ((TAGS[0],), HERMES),
    (
        ("List of tools: ",),  # LFM2
        ToolSyntax(
            {"<|tool_call_start|>": python_calls("<|tool_call_end|>")},
            ("<|tool_call_end|>",),
            form=list_form("<|tool_call_start|>", "<|tool_call_end|>"),
        ),
    ),
    (("<|start_header_id|>", "tools"), LLAMA),
    (("<|header_start|>", "tools"), LLAMA),  # Llama 4
)


# A reply that is nothing but a call: an object with "name" and "arguments".
BARE = ToolSyntax({}, bare=json_calls(is_known=True), form=object_form("", "", between=None))


def forced_syntax(names: Sequence[str]) -> ToolSyntax:
    """Return how a reply is written that must be a call of one of these functions.

    With one it is its arguments, with several a bare call.
    """
    return ToolSyntax({}, bare=arguments_of(names[0])) if len(names) == 1 else BARE


def find_tool_syntax(template: str) -> ToolSyntax:
    """Return how the model of a chat template writes tool calls; Hermes' way if the template has no sign."""
    return next((syntax for signs, syntax in SYNTAXES if all(sign in template for sign in signs)), HERMES)
