"""Readers of tool calls in JSON with more around it: one for each family of models that writes so."""

from __future__ import annotations

from ..harmony import CALL, MESSAGE
from ..markers import KIMI_CALLS
from .call_writer import CallWriter
from .characters import Characters, Reading, read_text
from .json_calls import json_calls, read_arguments


def function_tag(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Llama's name>{...}</function>."""
    name = yield from chars.until(">")
    yield from read_arguments(chars, calls, name)
    yield from chars.skip_space()
    yield from chars.optional("</function>")


def mistral(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Mistral's calls: a JSON list, or since Tekken 11 name[CALL_ID]id[ARGS]{...}."""
    yield from chars.skip_space()
    if (yield from chars.peek()) in "[{":
        yield from json_calls()(chars, calls, opened)
        return
    name = ""
    while (yield from chars.peek()) not in "[{":
        name += yield from chars.take()
        calls.check(name.strip())
    if (yield from chars.peek()) == "[":
        if (yield from chars.one_of("[ARGS]", "[CALL_ID]")) == "[CALL_ID]":
            yield from chars.until("[ARGS]")
        yield from chars.skip_space()
    yield from read_arguments(chars, calls, name.strip())


def harmony(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read a call of gpt-oss behind the header that HarmonySplitter writes: name and JSON."""
    name = yield from chars.until(MESSAGE)
    yield from chars.skip_space()
    yield from read_arguments(chars, calls, name)
    yield from chars.skip_space()
    yield from chars.optional(CALL)


DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")


def deepseek(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read DeepSeek's calls: type, name and JSON in a fence in V3 and R1, name and JSON since V3.1."""
    while True:
        if opened != DEEPSEEK[1]:
            yield from chars.skip_space()
            yield from chars.expect(DEEPSEEK[1])
        name = yield from chars.until("<｜tool▁sep｜>")
        yield from chars.skip_space()
        is_fenced = (yield from chars.peek()) != "{"
        if is_fenced:
            name = yield from chars.until("\n")
            yield from chars.expect("```json")
            yield from chars.skip_space()
        yield from read_arguments(chars, calls, name.strip())
        yield from chars.skip_space()
        if is_fenced:
            yield from chars.optional("```")
            yield from chars.skip_space()
        yield from chars.expect("<｜tool▁call▁end｜>")
        yield from chars.skip_space()
        if (yield from chars.peek()) != DEEPSEEK[1][0]:
            return
        opened = yield from chars.one_of(DEEPSEEK[1], "<｜tool▁calls▁end｜>")
        if opened != DEEPSEEK[1]:
            return


KIMI = (KIMI_CALLS, "<|tool_call_begin|>")


def kimi(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Kimi's calls: functions.name:0, then JSON."""
    while True:
        if opened != KIMI[1]:
            yield from chars.skip_space()
            yield from chars.expect(KIMI[1])
        place = yield from chars.until("<|tool_call_argument_begin|>")
        name = place.strip().removeprefix("functions.").rpartition(":")[0]
        yield from chars.skip_space()
        yield from read_arguments(chars, calls, name)
        yield from chars.skip_space()
        yield from chars.expect("<|tool_call_end|>")
        yield from chars.skip_space()
        if (yield from chars.peek()) != KIMI[1][0]:
            return
        opened = yield from chars.one_of(KIMI[1], "<|tool_calls_section_end|>")
        if opened != KIMI[1]:
            return


def apertus(chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
    """Read Apertus' calls: a list of objects, each with a function's name as its key."""
    yield from chars.skip_space()
    yield from chars.expect("[")
    while True:
        yield from chars.skip_space()
        yield from chars.expect("{")
        yield from chars.skip_space()
        name = yield from read_text(chars)
        yield from chars.skip_space()
        yield from chars.expect(":")
        yield from chars.skip_space()
        yield from read_arguments(chars, calls, name)
        yield from chars.skip_space()
        yield from chars.expect("}")
        yield from chars.skip_space()
        if (yield from chars.one_of(",", "]")) == "]":
            break
    yield from chars.skip_space()
    yield from chars.optional("<|tools_suffix|>")
