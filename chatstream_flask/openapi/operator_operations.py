"""The routes for operators as OpenAPI describes them."""

from __future__ import annotations

from .operation import (
    COUNT,
    STRING,
    STRING_OR_NULL,
    Json,
    Operation,
    a_reference,
    an_answer,
    an_array,
    an_object,
)

TAG = "operators"
KEYS = ("adminKey", "bearer", "basic")
WORKER = an_object(
    {
        "name": STRING,
        "state": {"enum": ["idle", "busy", "starting"]},
        "fault": STRING_OR_NULL,
        "last_step_at": {"type": "string", "format": "date-time"},
        "last_step_age_sec": {"type": "number", "minimum": 0},
        "running": COUNT,
        "slots": COUNT,
        "steps": COUNT,
    }
)
DETAILS: Json = {
    "broken": STRING_OR_NULL,
    "running": COUNT,
    "max_running": COUNT,
    "waiting": COUNT,
    "max_waiting": COUNT,
    "threads": an_array(WORKER),
}
STATES = ["ready", "broken", "draining", "stopped", "not_started", "thread_failing", "thread_fault"]
STATES += ["thread_starting"]
SCHEMAS: dict[str, Json] = {
    "Liveness": an_object({"status": {"enum": ["alive", "broken"]}}),
    "Readiness": an_object({"status": {"enum": STATES}, **DETAILS}, optional=tuple(DETAILS)),
}
REFUSED = {"4XX": an_answer("The route is closed, or the admin key is missing or wrong.", any=STRING)}


def _health(summary: str, schema: str) -> Operation:
    answers = {"200": "It is well.", "503": "It is not."}
    return Operation(
        summary=summary,
        tag=TAG,
        security=KEYS if schema == "Readiness" else (),
        answers={
            status: an_answer(description, json=a_reference(schema))
            for status, description in answers.items()
        }
        | REFUSED,
    )


OPERATOR_OPERATIONS: dict[str, Operation] = {
    "live": _health("Tell whether the process has to be restarted", "Liveness"),
    "ready": _health("Tell whether requests are accepted; details with the admin key", "Readiness"),
    "metrics": Operation(
        summary="Return metrics for Prometheus",
        tag=TAG,
        security=KEYS,
        answers={"200": an_answer("Metrics, as text or in OpenMetrics.", any=STRING), **REFUSED},
    ),
    "status_page": Operation(
        summary="Return the status page",
        tag=TAG,
        security=KEYS,
        answers={"200": an_answer("The page.", html=STRING), **REFUSED},
    ),
    "status_json": Operation(
        summary="Return the data of the status page",
        tag=TAG,
        security=KEYS,
        answers={"200": an_answer("Totals and recent latencies.", json={"type": "object"}), **REFUSED},
    ),
    "status_file": Operation(
        summary="Return a file of the status page",
        tag=TAG,
        security=KEYS,
        path_parameters={"name": {"enum": ["status.js", "status.css"]}},
        answers={"200": an_answer("The file.", any=STRING), **REFUSED},
    ),
}
