"""Grammars for structured replies: from a JSON schema or a regex to what SamplingParams.grammar takes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any

from ..config import shown
from ..errors import BadRequest, GenerationError
from . import validate as grammar_check

logger = logging.getLogger("chatstream_flask")

MAX_SCHEMA_LEN = 64 * 1024  # bytes of JSON
MAX_SCHEMA_DEPTH = 32  # objects and lists within each other
MAX_REGEX_LEN = 4096  # characters
MAX_MESSAGE_LEN = 300  # characters of the library's own words
MAX_CPU_SEC = 2  # to try a grammar
MAX_WAIT_SEC = 10.0  # for that, on a busy machine
MAX_CHECKS = 2  # at once, in this process
# Between the tokens of JSON. Not without end: a model that begins to write spaces may never stop.
WHITESPACE = r"[\x20\x0A\x0D\x09]{1,20}"

_checks = threading.BoundedSemaphore(MAX_CHECKS)


def json_schema_grammar(schema: Any) -> str:
    """Replies are JSON that fits the schema, its properties in the schema's order.

    :raises BadRequest: the schema is wrong, too large, too costly, or says what cannot be held to
    """
    if not isinstance(schema, dict):
        raise BadRequest(f"a JSON schema must be an object, not {shown(schema)}")
    _check_depth(schema)
    schema = {name: value for name, value in schema.items() if name != "x-guidance"}  # the library's options
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        num_bytes = len(text.encode())
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is not JSON: {error}") from error
    if num_bytes > MAX_SCHEMA_LEN:
        raise BadRequest(f"the JSON schema has {num_bytes} bytes; at most {MAX_SCHEMA_LEN} are allowed")
    options = {"whitespace_pattern": WHITESPACE}
    return _checked(_matcher_class().grammar_from_json_schema(text, overrides=options), "JSON schema")


def json_object_grammar() -> str:
    """Replies are a JSON object, any one."""
    return json_schema_grammar({"type": "object"})


def regex_grammar(pattern: str) -> str:
    """Replies match the whole of a regular expression (Rust's syntax, without look-around)."""
    if not isinstance(pattern, str) or not pattern:
        raise BadRequest(f"a regular expression must be a non-empty string, not {shown(pattern)}")
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            "the regular expression holds half of a surrogate pair, which is not text"
        ) from error
    if len(pattern) > MAX_REGEX_LEN:
        raise BadRequest(
            f"the regular expression has {len(pattern)} characters; at most {MAX_REGEX_LEN} are allowed"
        )
    return _checked(_matcher_class().grammar_from_regex(pattern), "regular expression")


def load_llguidance() -> Any:
    """The library, which is optional, and loaded only when a request needs it."""
    try:
        import llguidance
    except ImportError as error:
        raise BadRequest(
            "this server makes no structured replies: chatstream-flask[structured] is not installed"
        ) from error
    return llguidance


def _matcher_class() -> Any:
    return load_llguidance().LLMatcher


def _checked(grammar: str, kind: str) -> str:
    if error := _error(grammar):
        raise BadRequest(f"the {kind} cannot be used: {error[:MAX_MESSAGE_LEN]}")
    return grammar


@lru_cache(maxsize=256)
def _error(grammar: str) -> str:
    """What is wrong with a grammar; "" if nothing is."""
    job = json.dumps({"grammar": grammar, "path": sys.path, "cpu_sec": MAX_CPU_SEC})
    command = [sys.executable, "-I", grammar_check.__file__]
    with _checks:
        try:
            done = subprocess.run(command, input=job.encode(), capture_output=True, timeout=MAX_WAIT_SEC)
        except subprocess.TimeoutExpired as error:
            raise BadRequest(f"the grammar could not be tried within {MAX_WAIT_SEC:g} seconds") from error
        except OSError as error:
            raise GenerationError("grammars cannot be tried: no process can be started for it") from error
    if done.returncode > 0:
        logger.error("a grammar could not be tried: %s", done.stderr.decode(errors="replace"))
        raise GenerationError("grammars cannot be tried; the server's log says why")
    return "it is too costly" if done.returncode else done.stdout.decode()


def _check_depth(schema: Any) -> None:
    """Level by level, so that no depth can exhaust Python's stack."""
    level, depth = [schema], 0
    while level := [inner for outer in level for inner in _inner(outer)]:
        depth += 1
        if depth >= MAX_SCHEMA_DEPTH:
            raise BadRequest(f"the JSON schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")


def _inner(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, (dict, list))]
