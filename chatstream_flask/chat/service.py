"""Request handling of one model: chat turns, their replies, conversations and generation settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response, current_app
from prometheus_client.registry import Collector

from ..config import ContextPolicy, EngineConfig, OnBusy, SamplingParams, WireFormatName, check_callback
from ..conversation import ConversationStore
from ..engine.engine import Engine
from ..engine.runner import Runner
from ..errors import ChatStreamError, NotAccepting, NotFound, TooManyRequests
from ..hooks.registry import HookDecorators, Hooks
from ..http.cookie_check import CookieCheck
from ..http.problem import problem_response
from ..http.request_body import parse_offset, read_body
from ..http.request_check import check_host, check_origin
from ..http.server_check import ServerCheck
from ..model_source import ModelSource
from ..monitoring.engine_collector import EngineCollector
from ..monitoring.escape import escaped
from ..prompts import AbstractChatPrompt
from ..prompts.template_params import TemplateParams
from .admission import Admission
from .app_state import EXTENSION, AppState, state_of
from .chat_request import MAX_CONFIRMATION_LEN, SESSION_FIELDS, parse_chat_request, parse_confirmation
from .completion import Callback
from .conversation_access import ConversationAccess
from .instance_name import InstanceName
from .own_conversations import OwnConversations
from .readers import Readers
from .reply_registry import Reply
from .reply_response import reply_response
from .request_handler import AbstractRequestHandler
from .shared_prefix import ChatSharedPrefix
from .wire_format import choose


class ChatService(HookDecorators):
    """What views call: the same engine, queue and settings for every app that was set up for it."""

    def __init__(
        self,
        *,
        name: str,
        source: ModelSource,
        engine_config: EngineConfig,
        params: SamplingParams,
        template_params: TemplateParams,
        chat_prompt_clazz: type[AbstractChatPrompt],
        request_handler: AbstractRequestHandler,
        context_policy: ContextPolicy,
        on_busy: OnBusy,
        wire_format: WireFormatName,
        refuses_with_status: bool,
        shared_system_texts: tuple[str, ...],
        logger: logging.Logger,
    ) -> None:
        self.name = InstanceName.parse(name)
        self.source = source
        self.params = params
        self.param_origins: dict[str, str] = {}  # of those that `from_pretrained` has found
        self.template_params = template_params
        self.shared_system_texts = shared_system_texts
        self.chat_prompt_clazz = chat_prompt_clazz
        self.logger = logger
        self.engine = Engine(engine_config, self._make_runner)
        self.engine.upstreams = source.upstreams
        self.hooks = Hooks(self.engine.stats)
        self.check_server = ServerCheck(self.engine, lambda: engine_configs_of(current_app))
        self._check_cookie = CookieCheck(logger)
        self.readers = Readers(engine_config.max_extra_readers)
        self._wire_format = wire_format
        self._refuses_with_status = refuses_with_status
        self._conversations = ConversationAccess(
            self.name, request_handler, chat_prompt_clazz, params, template_params
        )
        self.own_conversations = OwnConversations(
            self._conversations,
            chat_prompt_clazz,
            lambda: self.state.settings,
            lambda conversation_id: self._admission.stop_reply(self.state, conversation_id),
        )
        self._admission = Admission(
            engine=self.engine,
            hooks=self.hooks,
            source=source,
            conversations=self._conversations,
            shared_prefix=ChatSharedPrefix(source, chat_prompt_clazz),
            params=params,
            template_params=template_params,
            context_policy=context_policy,
            on_busy=on_busy,
            check_server=self.check_server,
        )

    # -- replies -------------------------------------------------------------------------------------

    def handle_chat_stream_request(
        self,
        request: Request,
        request_body: bytes | str | dict[str, Any] | None = None,
        callback: Callback | None = None,
        *,
        resumable: bool = False,
    ) -> Response:
        """Return the streaming response to POST /chat_stream, or a refusal.

        :param request: `flask.request`
        :param request_body: the JSON body, if the app has read it already or wants another one
        :param callback: `callback(request, message)` is called once when an accepted request has ended, in
            an app context but not in the context of the request; `message` is `success`,
            `client_disconnected_before_streaming`, `client_disconnected_while_streaming` or
            `unknown_error_occurred`
        :param resumable: whether the app has a view for `handle_resume_request`; then a reply whose reader
            lost its connection continues for CHATSTREAM_RESUME_SEC
        """
        # The object itself: callers may pass Flask's proxy, which is invalid after the view.
        request = getattr(request, "_get_current_object", lambda: request)()
        state = self.state
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        try:
            if callback is not None:
                check_callback("callback", callback, "request", "message")
            self.check_caller(request)
            self._check_cookie(request)
            state.set_up_order.check(app, self.logger)
            data = read_body(request, state.settings.max_body_len) if request_body is None else request_body
            body = parse_chat_request(data, self.params, state.settings.max_input_len)
            reply = self._admission.accept(app, state, request, body, callback)
        except ChatStreamError as error:
            return self.refuse(error)
        return self._response(request, reply, is_resumable=resumable)

    def handle_resume_request(self, request: Request, message_id: str) -> Response:
        """Return a stream of the rest of a reply, after the characters that the client has already.

        Their number is the header `Last-Event-ID` or the argument `?offset=`.
        """
        state = self.state
        try:
            reply = state.replies.find(self._conversations.id_of(request), message_id)
            offset = parse_offset(request, reply.source.num_chars)
            return self._response(request, reply, is_resumable=True, offset=offset)
        except ChatStreamError as error:
            if isinstance(error, TooManyRequests):
                self.engine.stats.record_refused(error.reason)
            return self.refuse(error, problem_response)

    def handle_answer_now_request(self, request: Request, message_id: str) -> Response:
        """End the reasoning of a reply of the caller, so that its answer begins. Idempotent."""
        self.check_caller(request)
        try:
            reply = self.state.replies.find(self._conversations.id_of(request), message_id)
        except NotFound as error:
            return self.refuse(error)
        reply.source.answer_now()
        return Response(status=HTTPStatus.NO_CONTENT)

    def handle_answer_step_request(self, request: Request, message_id: str, step_id: str) -> Response:
        """Confirm or decline a function call for which a reply of the caller waits.

        The body is `{"confirm": true}` or `{"confirm": false}`.
        """
        self.check_caller(request)
        try:
            reply = self.state.replies.find(self._conversations.id_of(request), message_id)
            is_confirmed = parse_confirmation(read_body(request, MAX_CONFIRMATION_LEN))
            if not reply.source.answer_step(step_id, is_confirmed=is_confirmed):
                raise NotFound("this reply has no step with this id that waits to be confirmed")
        except ChatStreamError as error:
            return self.refuse(error)
        return Response(status=HTTPStatus.NO_CONTENT)

    def handle_cancel_request(self, request: Request, message_id: str) -> Response:
        """Cancel a reply of the caller; its text so far is kept and marked as interrupted. Idempotent."""
        self.check_caller(request)
        try:
            reply = self.state.replies.find(self._conversations.id_of(request), message_id)
            reply.source.cancel()
        except NotFound as error:
            if self.get_chat_prompt(request).find_chat_content_by_message_id(message_id) is None:
                return self.refuse(error)
        return Response(status=HTTPStatus.NO_CONTENT)

    # -- the caller's conversation -------------------------------------------------------------------

    def handle_clear_context_request(self, request: Request) -> dict[str, Any]:
        """Delete the caller's conversation; its running reply is cancelled and not kept."""
        self.check_caller(request)
        conversation_id = self._conversations.id_of(request)
        self._conversations.delete(self._conversations.owner_of(request), conversation_id)
        self._admission.stop_reply(self.state, conversation_id)
        return {"success": True, "message": "Context successfully cleared"}

    def get_chat_prompt(self, request: Request) -> AbstractChatPrompt:
        """Return the stored conversation that a request belongs to; for views and callbacks."""
        prompt = self._conversations.of(request).prompt
        prompt.tokenizer = self.source.tokenizer
        return prompt

    def get_running_reply(self, request: Request) -> Reply | None:
        """Return the running reply of the caller's conversation, if there is one."""
        return self.state.replies.running(self._conversations.id_of(request))

    def get_generation_params(self, request: Request) -> dict[str, Any]:
        """Return the sampling settings of the caller's conversation: its own over the constructor's."""
        return self._conversations.generation_params(request)

    def get_generation_param_origins(self, request: Request) -> dict[str, str]:
        """Return where each of these settings comes from.

        "conversation": it was set for this conversation; "generation_config": the model's files recommend
        it; "context_len": half of the context; "constructor": an argument of ChatStream or its default.
        """
        kept = self._conversations.of(request).generation_params
        return {
            name: "conversation" if name in kept else self.param_origins.get(name, "constructor")
            for name in sorted(SESSION_FIELDS)
        }

    def set_generation_params(self, request: Request, given: dict[str, Any] | None) -> dict[str, Any]:
        """Change those settings of the caller's conversation that are given, and return all in effect.

        :param given: None removes the conversation's own settings, so that the constructor's apply
        :raises BadRequest: a name or a value is not allowed
        :raises ConversationBusy: the conversation has a running reply
        """
        self.check_caller(request)
        self._conversations.set_generation_params(request, given)
        return self.get_generation_params(request)

    # -- the engine and the apps ---------------------------------------------------------------------

    @property
    def num_running(self) -> int:
        """Number of replies that are being generated."""
        return self.engine.num_running

    @property
    def num_waiting(self) -> int:
        """Number of requests that wait in the queue."""
        return self.engine.num_waiting

    def metrics_collector(self) -> Collector:
        """Return a collector of this ChatStream's metrics, for a Prometheus registry of the app's own."""
        return EngineCollector(self.engine)

    def start_queue_worker(self) -> None:
        """Start the generation threads now instead of at the first request; do nothing if they run.

        :raises UnsupportedModel: the model cannot be served
        :raises ConfigError: the model does not fit into memory, or a setting does not suit it
        """
        self.engine.start()

    def close(self) -> None:
        """End all replies and the generation threads; further requests get status 503. Idempotent.

        `start_queue_worker` starts the threads again.
        """
        self.engine.begin_drain()  # no later request starts an engine that has not started yet
        self.engine.stop()

    def store(self, app: Flask) -> ConversationStore:
        """Return the store in which the conversations of an app are kept.

        :raises RuntimeError: the app was not set up with `init_app`
        """
        return self._state_of(app).store

    # -- for views -----------------------------------------------------------------------------------

    @property
    def state(self) -> AppState:
        """What this ChatStream has for the current app.

        :raises RuntimeError: the app was not set up with `init_app`
        """
        return self._state_of(current_app)

    def check_caller(self, request: Request) -> None:
        """Check the host that a request names and, unless it only reads, the page that it comes from.

        :raises HostNotAllowed, OriginNotAllowed: they are not those of this server, nor allowed
        """
        settings = self.state.settings
        check_host(request, settings.allowed_hosts)
        check_origin(request, settings.allowed_origins)

    def refuse(
        self, error: ChatStreamError, respond: Callable[[ChatStreamError], Response] | None = None
    ) -> Response:
        """Log a refused request and return its response.

        :param respond: makes the response of an error; the default is application/problem+json
        """
        if error.status >= 500 and not isinstance(error, NotAccepting):
            self.logger.error("a request failed: %s", escaped(str(error)), exc_info=error.__cause__)
        response = (respond or self._problem)(error)
        self.state.reports.refused(error, response.status_code)
        return response

    # ------------------------------------------------------------------------------------------------

    def _state_of(self, app: Flask) -> AppState:
        state = state_of(app, self)
        if state is None:
            raise RuntimeError(f"this ChatStream was not set up for {app.name!r}; call init_app(app)")
        return state

    def _make_runner(self, thread: int) -> Runner:
        config = self.engine.config
        return self.source.make_runner(
            config.num_kept_slots(thread), config.num_of_generation_threads, config.device(thread)
        )

    def _response(self, request: Request, reply: Reply, *, is_resumable: bool, offset: int = 0) -> Response:
        wire = choose(self._wire_format, request.headers.get("Accept", ""), reply.message_id)
        settings = self.state.settings
        grace_sec = settings.resume_sec if is_resumable and wire.is_resumable else 0.0
        visitor = self._conversations.visitor_of(request)
        return reply_response(reply, wire, settings, request, grace_sec, offset, self.readers, visitor)

    def _problem(self, error: ChatStreamError) -> Response:
        return problem_response(error, too_many_as_200=not self._refuses_with_status)


def engine_configs_of(app: Flask) -> list[EngineConfig]:
    """Return the configurations of the engines of all ChatStreams of an app."""
    services: Iterable[ChatService] = app.extensions.get(EXTENSION, ())
    return [service.engine.config for service in services]
