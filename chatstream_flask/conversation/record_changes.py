"""What changed between two versions of a record, as JSON.

A change of an object has these fields, each only if it is needed:

- "remove": names of fields
- "set": fields that are new or have another value
- "inside": for fields whose value is an object or an array in both versions, the change of that value

A change of an array has these:

- "cut": ranges of items to remove, each as [start, stop], the last one first
- "add": items to append
"""

from __future__ import annotations

from typing import Any

import msgspec

Change = dict[str, Any]

encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def change_between(old: bytes, new: dict[str, Any]) -> Change:
    """Return what `apply_change` needs to turn one version of an object into another.

    :param old: JSON, as `encode` returned it
    :raises TypeError: `new` holds something that JSON cannot have
    """
    before = _decode_object(old)
    changed: dict[str, Any] = {}
    inside: dict[str, Change] = {}
    for name, value in new.items():
        former = bytes(before.pop(name, b""))
        text = encode(value)
        if former == text:
            continue
        if isinstance(value, dict) and former.startswith(b"{"):
            inside[name] = change_between(former, value)
        elif isinstance(value, list) and former.startswith(b"["):
            if text.startswith(former[:-1] + b","):  # it only goes on after its last item, as most do
                num_added = len(_decode_array(b"[" + text[len(former) :]))
                inside[name] = {"add": value[-num_added:]}
            else:
                inside[name] = _change_of_array(former, value)
        else:
            changed[name] = value
    return _without_empty({"remove": list(before), "set": changed, "inside": inside})


def _change_of_array(old: bytes, new: list[Any]) -> Change:
    """Return the change for an array that is cut at its end, in its middle, and continued.

    Any other change is described as such a one, which is then longer.
    """
    before = [bytes(item) for item in _decode_array(old)]
    after = [encode(item) for item in new]
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    try:
        stop = before.index(after[start], start)  # where it goes on after a cut in the middle
    except (IndexError, ValueError):
        stop = len(before)
    end, num_kept = stop, start
    while end < len(before) and num_kept < len(after) and before[end] == after[num_kept]:
        end, num_kept = end + 1, num_kept + 1
    cuts = [[end, len(before)], [start, stop]]
    return _without_empty({"cut": [cut for cut in cuts if cut[0] < cut[1]], "add": new[num_kept:]})


def _without_empty(change: Change) -> Change:
    return {name: value for name, value in change.items() if value}


def apply_change(value: Any, change: Change) -> None:
    """Change an object or an array in place.

    :raises KeyError, TypeError, ValueError: the change does not belong to this value
    """
    if isinstance(value, list):
        for start, stop in change.get("cut", ()):
            del value[start:stop]
        value.extend(change.get("add", ()))
        return
    for name in change.get("remove", ()):
        del value[name]
    value.update(change.get("set", {}))
    for name, inner in change.get("inside", {}).items():
        apply_change(value[name], inner)
