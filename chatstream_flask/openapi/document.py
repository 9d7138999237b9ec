"""Makes the OpenAPI document of an app from its URL map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

from flask import Flask
from werkzeug.routing import Rule

from . import chat_operations, chat_schemas, openai_operations, operator_operations
from .operation import Json, Operation

OPERATIONS: dict[str, dict[str, Operation]] = {  # by the module of the views, and the end of the endpoint
    "chatstream_flask.views.chat_api": chat_operations.CHAT_OPERATIONS,
    "chatstream_flask.views.operations": operator_operations.OPERATOR_OPERATIONS,
    "chatstream_flask.status_page.page": operator_operations.OPERATOR_OPERATIONS,
    "chatstream_flask.webui.page": chat_operations.PAGE_OPERATIONS,
    "chatstream_flask.openai_api.blueprint": openai_operations.OPENAI_OPERATIONS,
    "chatstream_flask.openai_api.server_routes": openai_operations.OPENAI_OPERATIONS,
}
SECURITY_SCHEMES: Json = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "one of CHATSTREAM_API_KEYS, if set"},
    "adminKey": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "the admin key"},
    "basic": {"type": "http", "scheme": "basic", "description": "the admin key as password"},
}
VARIABLE = re.compile(r"<(?:[^<>]*:)?(\w+)>")  # of a werkzeug rule


def describe(app: Flask) -> Json:
    """Return the OpenAPI 3.1 document of the routes that an app has from this package.

    All instances and blueprints of the app are included, at the paths where it registered them.
    """
    paths: dict[str, Json] = {}
    for rule, operation in described_rules(app):
        path = VARIABLE.sub(r"{\1}", rule.rule)
        for method in _methods(rule, operation):
            operation_id = f"{rule.endpoint}.{method}"
            paths.setdefault(path, {})[method] = operation.to_dict(operation_id, VARIABLE.findall(rule.rule))
    schemas = chat_schemas.SCHEMAS | openai_operations.SCHEMAS | operator_operations.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {"title": "chatstream_flask", "version": version("chatstream-flask")},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": SECURITY_SCHEMES},
    }


def described_rules(app: Flask) -> Iterator[tuple[Rule, Operation]]:
    """Yield the routes of an app that this package describes."""
    for rule in app.url_map.iter_rules():
        views = OPERATIONS.get(app.view_functions[rule.endpoint].__module__, {})
        if operation := views.get(rule.endpoint.rpartition(".")[2]):
            yield rule, operation


def _methods(rule: Rule, operation: Operation) -> list[str]:
    methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
    return sorted(method.lower() for method in methods if operation.method in (None, method))
