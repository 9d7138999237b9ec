"""A reader of tool calls whose parameters are tagged one by one; their JSON is made here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .call_writer import CallWriter
from .characters import BrokenText, Characters, Reading, Write, parse_json
from .json_calls import json_calls

PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}  # as templates write them into histories
TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True)
class TaggedParameters:
    """How a family writes a call whose parameters are tagged; an instance is a reader of its calls."""

    call: str  # before the name
    name_end: str  # behind it; empty: the name ends where it does
    call_end: str
    key: str
    key_end: str
    value: str  # between key and value
    value_end: str
    flag_end: str = ""  # if not empty: the key's end is followed by "true" for a string or "false", and this
    close: str = ""  # behind the last call
    has_line_ends: bool = True  # a newline at each end of a value is not part of it

    def __call__(self, chars: Characters, calls: CallWriter, opened: str) -> Reading[None]:
        """Read one or several calls; between tags they may also be JSON."""
        if opened != self.call:
            yield from chars.skip_space()
            if (yield from chars.peek()) == "{":
                yield from json_calls(self.close or self.call_end)(chars, calls, "")
                return
            yield from chars.expect(self.call)
        while True:
            yield from self._read_call(chars, calls)
            yield from chars.skip_space()
            if (yield from chars.peek()) != "<" or not self.close:
                return
            if (yield from chars.one_of(self.call, self.close)) == self.close:
                return

    def _read_call(self, chars: Characters, calls: CallWriter) -> Reading[None]:
        name = yield from self._read_name(chars, calls)
        calls.begin(name)
        calls.write("{")
        separator = ""
        while True:
            yield from chars.skip_space()
            if (yield from chars.one_of(self.key, self.call_end)) == self.call_end:
                break
            key = yield from chars.until(self.key_end)
            calls.write(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._read_value(chars, calls, calls.schema_of(name, key))
        calls.write("}")
        calls.end()

    def _read_name(self, chars: Characters, calls: CallWriter) -> Reading[str]:
        if self.name_end:
            name = yield from chars.until(self.name_end)
        else:
            name = ""
            yield from chars.skip_space()
            while (yield from chars.peek()) not in "<\n":
                name += yield from chars.take()
                calls.check(name.strip())
        calls.check(name.strip())
        return name.strip()

    def _read_value(self, chars: Characters, calls: CallWriter, schema: Any) -> Reading[None]:
        types = _types(schema)
        if self.value:
            yield from chars.skip_space()
            yield from chars.expect(self.value)
        elif self.flag_end:
            types = {"string"} if (yield from chars.until(self.flag_end)) == "true" else set()
        if types == {"string"}:
            yield from self._stream_string(chars, calls)
            return
        pieces: list[str] = []
        yield from self._read_raw(chars, pieces.append)
        calls.write(_json_of("".join(pieces), types))

    def _stream_string(self, chars: Characters, calls: CallWriter) -> Reading[None]:
        calls.write('"')
        yield from self._read_raw(chars, lambda text: calls.write(json.dumps(text, ensure_ascii=False)[1:-1]))
        calls.write('"')

    def _read_raw(self, chars: Characters, write: Write) -> Reading[None]:
        """Read a value and write its text as soon as it cannot be part of the value's end."""
        if self.has_line_ends and (yield from chars.peek()) == "\n":
            yield from chars.take()
        ends = [f"\n{self.value_end}"] if self.has_line_ends else []
        yield from chars.stream_until([*ends, self.value_end], write)


def _types(schema: Any) -> set[str]:
    """Return the JSON types that a schema allows; nothing if it does not say."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type", [])
    types = {named} if isinstance(named, str) else {t for t in named if isinstance(t, str)}
    for key in ("anyOf", "oneOf"):
        for each in schema[key] if isinstance(schema.get(key), list) else ():
            types |= _types(each)
    if not types and isinstance(schema.get("enum"), list):
        types = {TYPES[type(value)] for value in schema["enum"] if type(value) in TYPES}
    return types


def _json_of(text: str, types: set[str]) -> str:
    """Return the JSON of a value as the model wrote it; what is no JSON of these types is a string."""
    bare = PYTHON_WORDS.get(text.strip(), text.strip())
    try:
        kind = TYPES[type(parse_json(bare))]
    except BrokenText:
        return json.dumps(text, ensure_ascii=False)
    is_string = "string" in types and kind not in types and not (kind == "integer" and "number" in types)
    return json.dumps(text, ensure_ascii=False) if is_string else bare
