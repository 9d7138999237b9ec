"""Routes that vLLM and llama.cpp have beside /v1: health and version, tokenize and detokenize."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from flask import Response, jsonify, request

from ..chat.service import ChatService
from ..http.request_body import read_body
from ..monitoring.health import READY, readiness
from .errors import ApiError
from .models import Models
from .parse_body import check_body, decode_body, parse_body
from .prompts import PromptEncoder
from .schema import ChatBody, DetokenizeBody, TokenizeBody
from .tools import tool_use


class ServerRoutes:
    """The views; each answers clients of either server, with the fields that both expect."""

    def __init__(self, service: ChatService, models: Models, encoder: PromptEncoder) -> None:
        self._service = service
        self._source = service.source
        self._models = models
        self._encoder = encoder

    def health(self) -> Response:
        """Answer 200 if requests are accepted, else 503."""
        status = readiness(self._service.engine)
        response = jsonify(status="ok" if status == READY else status)
        response.status_code = HTTPStatus.OK if status == READY else HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Cache-Control"] = "no-store"
        return response

    def ping(self) -> Response:
        """Answer as `health` does: the name that SageMaker has for it."""
        return self.health()

    def version(self) -> Response:
        return jsonify(version=version("chatstream-flask"))

    def tokenize(self) -> Response:
        """Return the tokens of a text, or of the prompt that messages and tools make."""
        data = decode_body(self._read())
        body: ChatBody | TokenizeBody = (
            check_body(data, ChatBody) if "messages" in data else check_body(data, TokenizeBody)
        )
        self._models.resolve(body.model)
        ids = self._ids_of(body)
        answer: dict[str, Any] = {
            "count": len(ids),
            "max_model_len": self._source.context_len,
            "tokens": ids,
        }
        if data.get("return_token_strs"):
            answer["token_strs"] = [self._source.token_text(token_id) for token_id in ids]
        return jsonify(answer)

    def detokenize(self) -> Response:
        """Return the text of tokens, control tokens included."""
        body = parse_body(self._read(), DetokenizeBody)
        self._models.resolve(body.model)
        self._source.check_ids(body.tokens)
        text = self._source.decode(body.tokens)
        return jsonify(prompt=text, content=text)

    def _ids_of(self, body: ChatBody | TokenizeBody) -> list[int]:
        if isinstance(body, ChatBody):
            return self._encoder.encode(*self._encoder.check(body), tool_use(body))
        text = body.content if body.prompt is None else body.prompt
        if text is None:
            raise ApiError("prompt or messages is missing", param="prompt", code="missing_required_parameter")
        return self._source.encode_text(text, add_special_tokens=body.adds_special_tokens)

    def _read(self) -> bytes:
        return read_body(request, self._service.state.settings.max_body_len)
