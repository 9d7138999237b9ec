"""The routes of responses: create, retrieve, list the input, delete."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from flask import Response, jsonify, request

from ...chat.service import ChatService
from ...engine.reply_text import TokenLogprob
from ...http.request_body import read_body
from ..completions import Completions
from ..errors import ApiError, error_response
from ..generations import Generations
from ..keys import visitor_of
from ..models import Models
from ..parse_body import parse_body
from ..stream_response import probe, stream_options, stream_response
from ..token_text import chat_logprobs
from ..whole_answer import CLIENT_CLOSED_REQUEST, read_all
from .chat_input import answer_messages, chat_body, new_messages
from .output import Json, ResponseOutput
from .records import ResponseRecords, StoredResponse, input_items, new_response_id
from .schema import ResponsesBody
from .stream import ResponseStream


class Responses:
    """The views; a response is generated as a chat completion and stored when it has ended."""

    def __init__(self, service: ChatService, models: Models, completions: Completions) -> None:
        self._service = service
        self._models = models
        self._completions = completions

    def create_response(self) -> Response:
        """Answer POST /v1/responses."""
        settings = self._completions.settings
        body = parse_body(read_body(request, settings.max_body_len), ResponsesBody)
        records, owner, previous = self._records, self._owner(), body.previous_response_id
        earlier = records.load(previous, owner, "previous_response_id").messages if previous else []
        messages = [*earlier, *new_messages(body)]
        chat = chat_body(body, messages)
        has_logprobs = chat.num_logprobs is not None
        try:
            generations = self._completions.submit_chat(chat)
        except ApiError as error:
            if (error.param or "").startswith("messages"):
                error.param = "input"
            raise
        output = ResponseOutput(self._described(body), self._show_logprobs if has_logprobs else None)

        def save() -> None:
            if body.is_stored:
                following = [*messages, *answer_messages(output.output)]
                records.save(owner, StoredResponse(output.response, input_items(body.input), following))

        with generations:
            if not body.stream:
                return self._whole(generations, output, save)
            return stream_response(ResponseStream(generations, output, save, **stream_options(settings)))

    def get_response(self, response_id: str) -> Response:
        """Answer GET /v1/responses/{id}."""
        if request.args.get("stream") in ("true", "1") or "starting_after" in request.args:
            raise ApiError(
                "a response is retrieved whole: only those of background mode can be streamed again, which "
                "this server does not have",
                param="stream",
                code="unsupported_parameter",
            )
        return jsonify(self._records.load(response_id, self._owner()).response)

    def list_input_items(self, response_id: str) -> Response:
        """Answer GET /v1/responses/{id}/input_items, all of them, the newest first unless order=asc."""
        items = self._records.load(response_id, self._owner()).input_items
        if request.args.get("order", "desc") == "desc":
            items = items[::-1]
        return jsonify(
            object="list", data=items, first_id=items[0]["id"], last_id=items[-1]["id"], has_more=False
        )

    def delete_response(self, response_id: str) -> Response:
        """Answer DELETE /v1/responses/{id}."""
        self._records.delete(response_id, self._owner())
        return jsonify(id=response_id, object="response", deleted=True)

    def cancel_response(self, response_id: str) -> Response:
        """Answer POST /v1/responses/{id}/cancel: an error, as only background responses can be cancelled."""
        self._records.load(response_id, self._owner())
        raise ApiError(
            "only responses of background mode can be cancelled; to end this one while it is streamed, close "
            "the connection",
            code="unsupported_value",
        )

    @property
    def _records(self) -> ResponseRecords:
        return ResponseRecords(self._service.state.store, self._service.name)

    def _owner(self) -> str | None:
        """Return whose responses the caller may see; None, without keys, of all who know the id."""
        keys = self._completions.settings.api_keys
        return None if keys is None else visitor_of(request, keys)

    def _whole(self, generations: Generations, output: ResponseOutput, save: Any) -> Response:
        settings = self._completions.settings
        try:
            read = read_all(generations, probe(), settings.probe_sec)
        finally:
            generations.close()
        if read is None:
            return Response(status=CLIENT_CLOSED_REQUEST)
        outcome = generations.choices[0].outcome
        assert outcome is not None
        if outcome.failure:
            return error_response(outcome.failure)
        logprobs: Sequence[TokenLogprob] = read[0].logprobs
        for delta in read[0].deltas:
            told = logprobs if delta.get("content") else ()
            logprobs = () if told else logprobs
            deque(output.add(delta, told), maxlen=0)
        deque(output.complete(outcome), maxlen=0)
        save()
        return jsonify(output.response)

    def _show_logprobs(self, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        shown: list[Json] = chat_logprobs(logprobs, self._service.source)["content"]
        return shown

    def _described(self, body: ResponsesBody) -> Json:
        """Return the fields that a response has from its request."""
        params = self._service.params
        text = msgspec.to_builtins(body.text.format) if body.text and body.text.format else {"type": "text"}
        return {
            "id": new_response_id(),
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._models.resolve(body.model),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "service_tier": "default",
            "store": body.is_stored,
            "temperature": params.temperature if body.temperature is None else body.temperature,
            "text": {"format": {name: value for name, value in text.items() if value is not None}},
            "tool_choice": msgspec.to_builtins(body.tool_choice) or "auto",
            "tools": msgspec.to_builtins(body.tools) or [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": params.top_p if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": body.user,
        }
