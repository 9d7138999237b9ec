"""Grammars from JSON schemas, in the form that `SamplingParams.grammar` takes."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..config import shown
from ..errors import BadRequest, GenerationError
from . import validate

logger = logging.getLogger("chatstream_flask")

MAX_SCHEMA_LEN = 64 * 1024  # bytes of JSON
MAX_SCHEMA_DEPTH = 32  # nested objects and lists
MAX_MESSAGE_LEN = 300  # characters of llguidance's own message
MAX_CPU_SEC = 0.3  # CPU time to validate a grammar; the largest useful ones of 64 kB need 0.2
MAX_WAIT_SEC = 20.0  # elapsed time of it, which is longer on a busy machine
MAX_CHECKS = 2  # validations at the same time, per server process
# Between the tokens of JSON; limited, because a model that starts to write spaces may never stop.
WHITESPACE = r"[\x20\x0A\x0D\x09]{1,20}"

DIRECTIVE = re.compile(r"%(llguidance|json|lark|regex)\b")  # with these, grammars set options

_checks = threading.BoundedSemaphore(MAX_CHECKS)


def json_schema_grammar(schema: Any) -> str:
    """Return a grammar for JSON that conforms to the schema, with properties in the schema's order.

    :raises BadRequest: the schema is invalid, too large, too costly, or has keywords that are not supported
    """
    text = _json_of(schema)
    options = {"whitespace_pattern": WHITESPACE}
    try:
        grammar: str = load_llguidance().LLMatcher.grammar_from_json_schema(text, overrides=options)
    except ValueError as error:  # a number that no float holds
        raise BadRequest(f"the JSON schema cannot be used: {error}") from error
    return _validated(grammar)


def json_expression(schema: Any) -> str:
    """Return an expression for JSON that conforms to the schema, to be used in a Lark grammar.

    :raises BadRequest: the schema is no object, or too large
    """
    options = json.dumps({"whitespace_pattern": WHITESPACE})
    text = _json_of(schema)[1:-1]
    return f'%json {{"x-guidance": {options}{"," if text else ""}{text}}}'


def lark_grammar(rules: str) -> str:
    """Return a grammar that is written in llguidance's variant of Lark.

    :raises BadRequest: it is too large, or a schema in it cannot be used: see `json_schema_grammar`
    """
    load_llguidance()
    return _validated(_bounded(rules, "JSON schemas have"))


def regex_grammar(pattern: str) -> str:
    """Return a grammar for text that matches a regular expression as a whole, in the syntax of Rust.

    :raises BadRequest: it is no regular expression, or too costly
    """
    matcher = load_llguidance().LLMatcher
    try:
        grammar: str = matcher.grammar_from_regex(_bounded(pattern))
    except ValueError as error:
        raise BadRequest(f"the regular expression cannot be used: {error}") from error
    return _validated(grammar, "regular expression")


def choice_grammar(choices: Sequence[str]) -> str:
    """Return a grammar for one of several texts."""
    load_llguidance()
    texts = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    return _validated(_bounded(f"start: {texts}"), "choice")


def client_grammar(text: str) -> str:
    """Return a grammar that a client wrote in GBNF (llama.cpp), EBNF (xgrammar) or Lark.

    :raises BadRequest: it cannot be parsed, is too costly, or sets llguidance's own options
    """
    load_llguidance()
    from llguidance.gbnf_to_lark import any_to_lark

    if directive := DIRECTIVE.search(text):
        raise BadRequest(f"the grammar cannot be used: {directive[0]} is not supported")
    try:
        grammar = any_to_lark(_bounded(text))
    except Exception as error:  # whatever its parser raises for a text that is no grammar
        raise BadRequest(f"the grammar cannot be used: {str(error)[:MAX_MESSAGE_LEN]}") from error
    return _validated(grammar, "grammar")


def _json_of(schema: Any) -> str:
    """Return a schema as JSON."""
    if not isinstance(schema, dict):
        raise BadRequest(f"a JSON schema must be an object, not {shown(schema)}")
    _check_depth(schema)
    # Clients must not set llguidance's own options.
    schema = {name: value for name, value in schema.items() if name != "x-guidance"}
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        num_bytes = len(text.encode())
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is not JSON: {error}") from error
    if num_bytes > MAX_SCHEMA_LEN:
        raise BadRequest(f"the JSON schema has {num_bytes} bytes; at most {MAX_SCHEMA_LEN} are allowed")
    return text


def _bounded(grammar: str, has: str = "grammar has") -> str:
    if (num_bytes := len(grammar.encode())) > MAX_SCHEMA_LEN:
        raise BadRequest(f"the {has} {num_bytes} bytes; at most {MAX_SCHEMA_LEN} are allowed")
    return grammar


def _validated(grammar: str, name: str = "JSON schema") -> str:
    if problem := _problem(grammar):
        raise BadRequest(f"the {name} cannot be used: {problem[:MAX_MESSAGE_LEN]}")
    return grammar


def load_llguidance() -> Any:
    """Import llguidance, which is optional, when a request first needs it.

    :raises BadRequest: it is not installed
    """
    try:
        import llguidance
    except ImportError as error:
        raise BadRequest(
            "this server does not support structured output: chatstream-flask[structured] is not installed"
        ) from error
    return llguidance


@lru_cache(maxsize=256)
def _problem(grammar: str) -> str:
    """Validate a grammar in a process of its own; return what is wrong with it, or an empty string."""
    folder = os.path.dirname(load_llguidance().__file__)
    job = json.dumps({"grammar": grammar, "folder": folder, "cpu_sec": MAX_CPU_SEC})
    command = [sys.executable, "-I", "-S", validate.__file__]
    with _checks:
        try:
            done = subprocess.run(command, input=job.encode(), capture_output=True, timeout=MAX_WAIT_SEC)
        except subprocess.TimeoutExpired as error:
            raise BadRequest(f"the grammar could not be validated within {MAX_WAIT_SEC:g} seconds") from error
        except OSError as error:
            raise GenerationError("grammars cannot be validated: no process can be started") from error
    if done.returncode > 0:
        logger.error("a grammar could not be validated: %s", done.stderr.decode(errors="replace"))
        raise GenerationError("grammars cannot be validated; see the server's log")
    return "it is too costly" if done.returncode else done.stdout.decode()


def _check_depth(schema: Any) -> None:
    """Check the nesting level by level, so that no depth can overflow Python's stack."""
    level, depth = [schema], 0
    while level := [child for parent in level for child in _children(parent)]:
        depth += 1
        if depth >= MAX_SCHEMA_DEPTH:
            raise BadRequest(f"the JSON schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")


def _children(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in values if isinstance(child, (dict, list))]
