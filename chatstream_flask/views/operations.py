"""Routes for operators: GET /metrics, /health/live, /health/ready and the status page."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request
from prometheus_client.exposition import choose_encoder

from ..chat.service import ChatService
from ..monitoring.engine_collector import make_registry
from ..monitoring.health import READY, engine_health, readiness
from ..monitoring.origin import assign_request_id
from ..status_page.admin_key import OperatorAccess
from ..status_page.page import add_status_page


def create_operations_blueprint(chat_stream: ChatService) -> Blueprint:
    """Return a blueprint with metrics, health checks and the status page.

    They are for operators: keep visitors out, by CHATSTREAM_METRICS, by a `url_prefix` or at the proxy. Each
    ChatStream has its own blueprint, whose metrics are those of its engine; those of a ChatStream with a
    name are below `/<name>`.
    """
    instance = chat_stream.name
    blueprint = Blueprint(
        instance.blueprint("chatstream_operations"), __name__, url_prefix=instance.url_prefix or None
    )
    blueprint.before_request(assign_request_id)

    @blueprint.before_request
    def check_caller() -> None:
        is_health_check = request.path.rpartition("/")[0].endswith("/health")
        if not is_health_check:  # load balancers ask by address
            chat_stream.check_caller(request)

    registry = make_registry(chat_stream.engine)
    access = OperatorAccess(chat_stream)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        access.require(chat_stream.state.settings.metrics)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    @blueprint.get("/health/live")
    def live() -> Response:
        """Return 503 if the process must be restarted."""
        is_broken = chat_stream.engine.broken is not None
        return _health({"status": "broken" if is_broken else "alive"}, is_well=not is_broken)

    @blueprint.get("/health/ready")
    def ready() -> Response:
        has_details = access.has(chat_stream.state.settings.metrics)
        engine = chat_stream.engine
        health = engine_health(engine) if has_details else {"status": readiness(engine)}
        return _health(health, is_well=health["status"] == READY)

    add_status_page(blueprint, chat_stream, access)
    return blueprint


def _health(data: dict[str, Any], *, is_well: bool) -> Response:
    response = jsonify(data)
    response.status_code = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    response.headers["Cache-Control"] = "no-store"
    return response
