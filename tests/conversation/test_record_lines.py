"""Lines in which a record is stored, and the changes that they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.conversation.record_changes import apply_change, change_between, encode
from chatstream_flask.conversation.record_lines import (
    DamagedLines,
    Line,
    LinesChanged,
    RecordLines,
    read_lines,
)
from chatstream_flask.errors import InvalidRecord

SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text("aあ\n", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)
RECORDS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def exactly(record: object) -> str:
    return json.dumps(record, sort_keys=True)


@given(RECORDS, RECORDS)
def test_a_change_makes_exactly_the_new_version(old: dict[str, Any], new: dict[str, Any]) -> None:
    change = json.loads(json.dumps(change_between(encode(old), new)))
    apply_change(old, change)
    assert exactly(old) == exactly(new)


@given(st.lists(RECORDS, max_size=8))
def test_lines_are_the_newest_version(versions: list[dict[str, Any]]) -> None:
    stored: list[bytes] = []

    def write(line: Line) -> bool:
        del stored[line.num_lines or 0 :]
        assert len(stored) == line.num_lines
        assert len(b"\n".join(stored)) == line.num_bytes
        assert b"\n" not in line.text
        stored.append(line.text)
        return True

    for version in versions:
        lines = RecordLines()
        assert exactly(lines.read(stored)) == exactly(read_lines(stored))
        for _ in range(2):
            assert lines.store(version, write)
            assert exactly(read_lines(stored)) == exactly(version)


def test_a_turn_is_a_short_line_and_so_is_one_that_lets_the_oldest_go() -> None:
    contents = [{"message": f"message {n} " * 10} for n in range(100)]
    old = encode({"v": 2, "prompt": {"contents": contents}})
    grown = [*contents, {"message": "new"}]
    assert change_between(old, {"v": 2, "prompt": {"contents": grown}}) == {
        "inside": {"prompt": {"inside": {"contents": {"add": [{"message": "new"}]}}}}
    }
    moved = [*contents[:2], *contents[6:-1], {"message": "new"}]
    cut = {"cut": [[99, 100], [2, 6]], "add": [{"message": "new"}]}
    assert change_between(old, {"v": 2, "prompt": {"contents": moved}}) == {
        "inside": {"prompt": {"inside": {"contents": cut}}}
    }


def test_what_is_not_there_any_more_is_written_whole() -> None:
    lines = RecordLines()
    lines.read([b'{"n":1}'])
    written = []

    def write(line: Line) -> bool:
        if line.num_lines:
            raise LinesChanged
        written.append(line.text)
        return True

    assert lines.store({"n": 2}, write)
    assert written == [b'{"n":2}']


@pytest.mark.parametrize(
    ("lines", "num_good"),
    [
        ([b""], 0),
        ([b"[]"], 0),
        ([b"\xff"], 0),
        ([b"[" * 100_000], 0),
        ([b"{}", b'{"set":{"a":[1]}}', b"{"], 2),
        ([b"{}", b'{"remove":["a"]}'], 1),
        ([b"{}", b'{"inside":{"a":{}}}'], 1),
        ([b"{}", b'{"set":[1]}'], 1),
        ([b"{}", b"[]"], 1),
        ([b"{}", b"7"], 1),
        ([b'{"a":1}', b'{"inside":{"a":{"add":[1]}}}'], 1),
        ([b'{"a":[]}', b'{"inside":{"a":{"cut":[1]}}}'], 1),
        ([b'{"a":[]}', b'{"inside":{"a":{"cut":[["0",1]]}}}'], 1),
    ],
)
def test_a_damaged_line_is_found(lines: list[bytes], num_good: int) -> None:
    with pytest.raises(DamagedLines, match=f"damaged in line {num_good + 1}: ") as caught:
        read_lines(lines)
    assert caught.value.num_good == num_good


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, [1, float("nan")]])
def test_what_is_no_json_is_refused_before_anything_is_written(value: object) -> None:
    lines = RecordLines()
    lines.read([b'{"v":[1]}'])
    with pytest.raises(InvalidRecord):
        lines.store({"v": value}, lambda line: pytest.fail("it was written"))
