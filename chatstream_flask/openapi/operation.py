"""One route's method as OpenAPI describes it, and the JSON schemas that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
STRING_OR_NULL: Json = {"type": ["string", "null"]}


def an_object(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    """Return the schema of an object that has exactly these properties."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def an_array(items: Json) -> Json:
    return {"type": "array", "items": items}


def an_event(description: str) -> Json:
    """Return the schema of each event of a `text/event-stream`."""
    properties = {"data": STRING, "event": STRING, "id": STRING}
    return {"type": "object", "description": description, "properties": properties, "required": ["data"]}


def a_reference(name: str) -> Json:
    """Return a reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def an_answer(description: str, headers: Json | None = None, **content: Json) -> Json:
    """Return the description of a response.

    :param content: schemas by the names in `MEDIA_TYPES`
    """
    answer: Json = {"description": description}
    if headers:
        answer["headers"] = {name: {"schema": schema} for name, schema in headers.items()}
    if content:
        answer["content"] = {MEDIA_TYPES[kind]: {"schema": schema} for kind, schema in content.items()}
    return answer


MEDIA_TYPES = {
    "json": "application/json",
    "problem": "application/problem+json",
    "events": "text/event-stream",
    "lines": "application/x-ndjson",
    "text": "text/plain",
    "markdown": "text/markdown",
    "html": "text/html",
    "css": "text/css",
    "script": "text/javascript",
    "metrics": "text/plain",
    "any": "*/*",
}

PROBLEM = an_object(
    {
        "type": STRING,
        "title": STRING,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": STRING,
        "error": STRING | {"description": "a code for programs"},
        "reason": STRING | {"description": "which limit refused the request, if one did"},
    },
    optional=("reason",),
)
PROBLEMS: Json = {
    "4XX": an_answer("The request is refused; `detail` says what is wrong.", problem=a_reference("Problem")),
    "5XX": an_answer("The server cannot answer now.", problem=a_reference("Problem")),
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a method of a route takes and answers.

    :param answers: responses by status
    :param body: schema of the JSON body; None: the route takes none
    :param path_parameters: schemas of the variable parts of the path; a string if not named
    :param parameters: further parameters, as OpenAPI has them
    :param method: None: as the route says
    :param security: names of security schemes, of which one is needed where the app has set a key
    """

    summary: str
    tag: str
    answers: Mapping[str, Json]
    body: Json | None = None
    path_parameters: Mapping[str, Json] = field(default_factory=dict)
    parameters: tuple[Json, ...] = ()
    method: str | None = None
    security: tuple[str, ...] = ()

    def to_dict(self, operation_id: str, variables: list[str]) -> Json:
        """Return the operation as OpenAPI has it.

        :param variables: names of the variable parts of the path
        """
        described: Json = {"operationId": operation_id, "summary": self.summary, "tags": [self.tag]}
        if self.security:
            described["security"] = [{}, *({name: []} for name in self.security)]
        in_path = [
            {"name": name, "in": "path", "required": True, "schema": self.path_parameters.get(name, STRING)}
            for name in variables
        ]
        if parameters := [*in_path, *self.parameters]:
            described["parameters"] = parameters
        if self.body is not None:
            content = {MEDIA_TYPES["json"]: {"schema": self.body}}
            described["requestBody"] = {"required": True, "content": content}
        return described | {"responses": dict(self.answers)}
