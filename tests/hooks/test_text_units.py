"""Text comes in the same units however it was cut into pieces."""

from __future__ import annotations

import pytest

from chatstream_flask.hooks.text_units import TextUnits, UnitName

TEXT = 'Call 3.14 (or "a.b@c.org"?) now. She said "No!"  Then:\n「はい。」そして？！ end'
UNITS: dict[UnitName, list[str]] = {
    "sentence": [
        'Call 3.14 (or "a.b@c.org"?) ',
        "now. ",
        'She said "No!" ',
        " Then:\n",
        "「はい。」",
        "そして？",
        "！",
        " end",
    ],
    "word": [
        *("Call ", "3.14 ", "(or ", '"a.b@c.org"?) ', "now. ", "She ", "said ", '"No!" ', " ", "Then:\n"),
        *("「はい。」そして？！ ", "end"),
    ],
    "reply": [TEXT],
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_units_do_not_depend_on_how_the_text_was_cut(unit: UnitName, size: int) -> None:
    units = TextUnits(unit)
    found = [each for i in range(0, len(TEXT), size) for each in units.push(TEXT[i : i + size])]
    assert found + units.finish() == UNITS[unit]
    assert units.finish() == []


def test_a_unit_comes_as_soon_as_it_is_complete() -> None:
    units = TextUnits("sentence")
    assert units.push("One.") == []  # a number may go on
    assert units.push(" Two") == ["One. "]
    assert units.push("\n") == ["Two\n"]
