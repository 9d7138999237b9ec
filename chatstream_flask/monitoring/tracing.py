"""OpenTelemetry spans of requests, with attributes of the GenAI semantic conventions.

Without OpenTelemetry installed nothing is recorded.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from ..engine.outcome import FinishReason, Outcome
from ..engine.request import GenerationRequest

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    is_available = True
except ImportError:
    is_available = False

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from werkzeug.datastructures import Headers

TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
PHASES = ("queue", "prefill", "decode")  # names of the child spans


def parent_context(headers: Headers) -> Context | None:
    """Return the current span's context if the app traces requests, else that of the `traceparent` header."""
    if not is_available:
        return None
    if trace.get_current_span().get_span_context().is_valid:
        return context.get_current()
    carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    return TraceContextTextMapPropagator().extract(carrier)


def trace_headers(parent: Context | None, headers: Headers) -> dict[str, str]:
    """Return the headers by which another server continues the trace.

    :param parent: the context of the parent span, if OpenTelemetry is installed
    :param headers: those of the request, which are passed on as they are without OpenTelemetry
    """
    if parent is not None:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, parent)
        return carrier
    traceparent = headers.get("traceparent", "")
    return {"traceparent": traceparent} if TRACEPARENT.fullmatch(traceparent) else {}


def record_span(
    parent: Context | None,
    generation: GenerationRequest,
    outcome: Outcome,
    *,
    request_id: str,
    session: str | None,
    operation: str,
) -> None:
    """Record the spans of an ended reply from the times that were measured.

    Without a tracer provider, which the app sets up with the OpenTelemetry SDK, nothing is exported.
    """
    if not is_available:
        return
    tracer = trace.get_tracer("chatstream_flask")
    began = time.time() - (time.monotonic() - generation.created_at)
    span = tracer.start_span(
        operation,
        context=parent,
        kind=trace.SpanKind.SERVER,
        start_time=_ns(began),
        attributes=_attributes(generation, outcome, operation)
        | {"chatstream.request_id": request_id}
        | ({} if session is None else {"gen_ai.conversation.id": session}),
    )
    inside = trace.set_span_in_context(span)
    bounds = [0.0, outcome.queue_sec, outcome.first_token_sec, outcome.total_sec]
    for phase, start, end in zip(PHASES, bounds, _ends(outcome), strict=False):
        assert start is not None
        child = tracer.start_span(phase, context=inside, start_time=_ns(began + start))
        child.end(_ns(began + end))
    if outcome.finish_reason is FinishReason.ERROR:
        span.set_status(trace.StatusCode.ERROR, outcome.error)
        span.set_attribute("error.type", "generation_failed")
    span.end(_ns(began + outcome.total_sec))


def _ends(outcome: Outcome) -> list[float]:
    """Return the end of each phase that the request reached, in seconds since its arrival."""
    if not outcome.is_started:
        return [outcome.total_sec]
    if outcome.first_token_sec is None:
        return [outcome.queue_sec, outcome.total_sec]
    return [outcome.queue_sec, outcome.first_token_sec, outcome.total_sec]


def _attributes(generation: GenerationRequest, outcome: Outcome, operation: str) -> dict[str, Any]:
    params = generation.params
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "chatstream_flask",
        "gen_ai.request.max_tokens": 0 if generation.is_prompt_only else params.max_new_tokens,
        "gen_ai.request.temperature": float(params.temperature),
        "gen_ai.request.top_p": float(params.top_p),
        "gen_ai.request.top_k": params.top_k,
        "gen_ai.request.seed": params.seed,
        "gen_ai.request.stop_sequences": list(params.stop) or None,
        "gen_ai.response.finish_reasons": [outcome.finish_reason.value],
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": outcome.cached_tokens,
        "gen_ai.response.time_to_first_chunk": outcome.first_token_sec,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
