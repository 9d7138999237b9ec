"""The routes of responses: create, retrieve, list the input, cancel, delete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import msgspec
from flask import Response, jsonify, request

from ...chat.service import ChatService
from ...chat.wire_format import server_sent_event
from ...config import shown
from ...conversation import Lease
from ...engine.reply_source import LocalReply
from ...engine.reply_text import TokenLogprob
from ...http.request_body import read_body
from ..completions import Completions
from ..errors import ApiError, error_response
from ..generations import Generations, OnEnd
from ..keys import visitor_of
from ..message_schema import Message
from ..models import Models
from ..parse_body import parse_body
from ..schema import ChatBody
from ..stream_response import event_response, probe, stream_options, stream_response
from ..token_text import chat_logprobs
from ..whole_answer import CLIENT_CLOSED_REQUEST
from .chat_input import answer_messages, chat_body, new_messages
from .output import Json, ResponseOutput, last_event
from .records import ResponseRecords, StoredResponse, input_items, new_response_id
from .running import RunningResponse, RunningResponses
from .schema import ResponsesBody
from .stream import ResponseStream

MAX_EVENTS = 2**31  # the number of an event is below it


class Responses:
    """The views; a response is generated as a chat completion and stored when it has ended.

    A background response is stored from its beginning, under a lease that other servers see.
    """

    def __init__(self, service: ChatService, models: Models, completions: Completions) -> None:
        self._service = service
        self._models = models
        self._completions = completions
        self._running = RunningResponses()

    def create_response(self) -> Response:
        """Answer POST /v1/responses."""
        settings = self._completions.settings
        body = parse_body(read_body(request, settings.max_body_len), ResponsesBody)
        running = self._begin(body)
        if body.stream:
            return self._streamed(running)
        if body.background:
            return jsonify(running.response)
        with running.generations:
            return self._whole(running)

    def _begin(self, body: ResponsesBody) -> RunningResponse:
        """Submit a response, and store one of the background."""
        records, owner, previous = self._records, self._owner(), body.previous_response_id
        is_background = bool(body.background)
        if is_background and not body.is_stored:
            raise ApiError("background needs store, which is false", param="background")
        earlier = self._previous_messages(previous, owner) if previous else []
        messages = [*earlier, *new_messages(body)]
        chat = chat_body(body, messages)
        has_logprobs = chat.num_logprobs is not None
        output = ResponseOutput(self._described(body), self._show_logprobs if has_logprobs else None)
        lease: Lease | None = None

        def stored() -> StoredResponse:
            following = [*messages, *answer_messages(output.output)]
            return StoredResponse(
                output.response, input_items(body.input), following, num_events=output.num_events + 1
            )

        def keep() -> None:
            if not is_background and body.is_stored:
                records.save(owner, stored())
            if lease is not None:
                try:
                    records.save(owner, stored(), lease)
                finally:
                    lease.close()

        def keep_first() -> None:
            nonlocal lease
            if is_background:
                lease = records.hold(output.response["id"])
                records.save(owner, stored(), lease)

        running = RunningResponse(output, keep, owner=owner, is_background=is_background)
        running.begin(partial(self._submit, chat), keep_first)
        if is_background:
            self._running.add(running)
        return running

    def _submit(self, chat: ChatBody, on_end: OnEnd) -> Generations:
        try:
            return self._completions.submit_chat(chat, on_end)
        except ApiError as error:
            if (error.param or "").startswith("messages"):
                error.param = "input"
            raise

    def _previous_messages(self, previous: str, owner: str | None) -> list[Message]:
        param = "previous_response_id"
        stored = self._records.load(previous, owner, param)
        if not self._records.end_if_lost(owner, stored).has_ended:
            raise ApiError(
                "the previous response has not ended yet", param=param, code="response_in_progress"
            )
        return stored.messages

    def get_response(self, response_id: str) -> Response:
        """Answer GET /v1/responses/{id}: the response, or the events of one of the background."""
        running, stored = self._found(response_id)
        if request.args.get("stream") not in ("true", "True", "1"):
            return jsonify(stored.response if running is None else running.response)
        if not stored.response["background"]:
            raise ApiError(
                "only responses that were created with background can be streamed again",
                param="stream",
                code="unsupported_parameter",
            )
        start = _number("starting_after", -1) + 1
        if running is not None:
            return self._streamed(running, start)
        if not stored.has_ended:
            raise ApiError("another server generates the response; ask that one", status=409)
        number = max(stored.num_events - 1, start)  # the events before it are not kept
        last = last_event(stored.response, number)
        return event_response(server_sent_event(last, name=last["type"]))

    def _found(self, response_id: str) -> tuple[RunningResponse | None, StoredResponse]:
        """Return a response, also as it runs if it does so here."""
        owner = self._owner()
        running = self._running.find(response_id, owner, self._completions.settings.resume_sec)
        stored = self._records.load(response_id, owner)
        if running is None:
            stored = self._records.end_if_lost(owner, stored)
        return running, stored

    def list_input_items(self, response_id: str) -> Response:
        """Answer GET /v1/responses/{id}/input_items, all of them, the newest first unless order=asc."""
        items = self._records.load(response_id, self._owner()).input_items
        if request.args.get("order", "desc") == "desc":
            items = items[::-1]
        return jsonify(
            object="list", data=items, first_id=items[0]["id"], last_id=items[-1]["id"], has_more=False
        )

    def delete_response(self, response_id: str) -> Response:
        """Answer DELETE /v1/responses/{id}; one that runs is ended."""
        running, _ = self._found(response_id)
        self._records.delete(response_id, self._owner())
        if running is not None:
            self._running.remove(response_id)
            running.cancel()
        return jsonify(id=response_id, object="response", deleted=True)

    def cancel_response(self, response_id: str) -> Response:
        """Answer POST /v1/responses/{id}/cancel: the response, which has ended."""
        running, stored = self._found(response_id)
        if not stored.response["background"]:
            raise ApiError(
                "only responses that were created with background can be cancelled; to end another one while "
                "it is streamed, close the connection",
                code="unsupported_value",
            )
        if running is not None:
            running.cancel()
            return jsonify(running.response)
        if not stored.has_ended:
            raise ApiError("another server generates the response; ask that one", status=409)
        return jsonify(stored.response)

    @property
    def _records(self) -> ResponseRecords:
        return ResponseRecords(self._service.state.store, self._service.name)

    def _owner(self) -> str | None:
        """Return whose responses the caller may see; None, without keys, of all who know the id."""
        keys = self._completions.settings.api_keys
        return None if keys is None else visitor_of(request, keys)

    def _streamed(self, running: RunningResponse, start: int = 0) -> Response:
        settings = self._completions.settings
        options = stream_options(settings)
        if not running.is_background:
            return stream_response(ResponseStream(running, **options))
        stream = self._service.readers.open(
            LocalReply(self._service.engine, running.request),
            visitor_of(request, settings.api_keys),
            lambda: ResponseStream(running, start, **options),
        )
        return stream_response(stream)

    def _whole(self, running: RunningResponse) -> Response:
        is_gone, generations = probe(), running.generations
        try:
            while not running.is_over:
                running.advance()
                if is_gone():
                    return Response(status=CLIENT_CLOSED_REQUEST)
                generations.wait(self._completions.settings.probe_sec, lambda: running.has_ended)
        finally:
            generations.close()
        return error_response(running.failure) if running.failure else jsonify(running.response)

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
            "background": bool(body.background),
            "error": None,
            "frequency_penalty": params.frequency_penalty,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "metadata": body.metadata or {},
            "model": self._models.resolve(body.model),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "presence_penalty": params.presence_penalty,
            "previous_response_id": body.previous_response_id,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "safety_identifier": None,
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


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    try:
        return min(max(int(text), -1), MAX_EVENTS)
    except ValueError as error:
        raise ApiError(f"{name} must be the number of an event, not {shown(text)}", param=name) from error
