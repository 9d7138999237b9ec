"""Schemas within other schemas; references keep their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]


def any_of(schemas: Sequence[Schema]) -> Schema:
    """Return a schema for what conforms to one of the schemas."""
    return {"anyOf": [moved(schema, f"#/anyOf/{i}") for i, schema in enumerate(schemas)]}


def moved(schema: Any, place: str) -> Any:
    """Return a schema with its references changed for its place in a larger schema."""
    if isinstance(schema, list):
        return [moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: moved(value, place) for key, value in schema.items()}
    if isinstance(changed.get("$ref"), str) and changed["$ref"].startswith("#"):
        changed["$ref"] = place + changed["$ref"].removeprefix("#")
    return changed
