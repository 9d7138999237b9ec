"""ChatStream: the Flask extension that joins requests, conversations and the engine."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app

from .chat.admission import Admission
from .chat.app_state import AppState, make_conversation_store
from .chat.chat_request import parse_chat_request
from .chat.completion import Callback
from .chat.conversation_access import ConversationAccess
from .chat.reply_registry import Reply, ReplyRegistry
from .chat.reply_response import close_lost_reply, reply_response
from .chat.request_handler import AbstractRequestHandler, SimpleSessionRequestHandler
from .chat.shared_prefix import SharedPrefix
from .chat.wire_format import choose
from .config import MULTIPLICATIVE, ContextPolicy, EngineConfig, OnBusy, SamplingParams, WireFormatName
from .engine.engine import Engine
from .engine.runner import Runner
from .errors import ChatStreamError, ConfigError, NotAccepting, NotFound
from .http.problem import problem_response
from .http.request_body import parse_offset, read_body
from .http.server_check import ServerCheck, check_gunicorn_that_loads_us
from .model_source import ModelSource, make_source
from .monitoring.access_log import AccessLog
from .monitoring.japanese import set_log_language
from .monitoring.origin import add_request_id_header
from .monitoring.reports import Reports
from .prompts import AbstractChatPrompt, ChatPrompt
from .prompts.chat_prompt import check_has_template
from .settings import Settings
from .views import append_apis

if TYPE_CHECKING:
    from .inference.devices import Devices


class ChatStream:
    """A chat for Flask apps: one model, one queue, any number of apps.

    ```
    chat_stream = ChatStream(model=model, tokenizer=tokenizer, app=app)

    @app.post("/chat_stream")
    def chat():
        return chat_stream.handle_chat_stream_request(request)
    ```

    A wrong setting raises ConfigError here; a model that cannot be served, or does not fit into memory,
    raises when the generation threads start: at `start_queue_worker()`, else at the first request.

    :param model: a transformers causal language model
    :param tokenizer: its tokenizer
    :param device: "cpu", "cuda", "cuda:0", "mps" or a torch.device; None leaves the model where it is, also
        one that a `device_map` has spread. A list: a copy of the model and its own threads on each
    :param num_of_concurrent_executions: replies generated at once
    :param max_queue_size: requests that may wait beyond those; one more is refused at once
    :param num_of_generation_threads: threads that share the replies, as many on each device; None: two on CPU
        for many replies, else one
    :param too_many_request_as_http_error: refuse with status 429, not with 200 and `{"error": ...}`
    :param use_mock_response: answer with fixed phrases, without model and torch
    :param mock_params: `type` ("round", "long", "echo"), `initial_wait_sec`, `time_per_token_sec`; None is
        `{"type": "round"}`
    :param chat_prompt_clazz: how a conversation becomes a prompt; ChatPrompt uses the chat template
    :param max_new_tokens: the most tokens of a reply
    :param context_len: the most tokens of prompt and reply together; the model's own limit if that is lower
    :param temperature: 0 to 2, 0 is greedy
    :param top_k: sample from the k likeliest tokens; None or 0 is off
    :param top_p: sample from the likeliest tokens that together have this probability; 1 is off
    :param repetition_penalty: for tokens that have occurred; None is off
    :param repetition_penalty_method: "multiplicative" (as in transformers) or "subtractive"
    :param add_special_tokens: for prompts that are plain text; None is the tokenizer's default
    :param request_handler: says which conversation a request belongs to, and where it is kept
    :param logger: where this object logs; the default is the logger "chatstream_flask"
    :param kv_cache_slots: conversations whose keys and values are kept in memory, so that the next turn
        computes only what is new; None: as many as run at once
    :param prompt_lookup_num_tokens: greedy replies are speculated on: up to so many tokens that followed the
        last ones where these stood before, in prompt or reply, are proposed and verified in one step, while
        that is measured to pay; None or 0 is off
    :param context_policy: for a conversation longer than the context: "drop_oldest_turns", "error", or
        "keep_system_and_recent", which leaves out the prompt class's own examples first
    :param on_busy: for a request while its conversation has a reply in the making: "reject" (409), "queue"
        (waits) or "replace" (ends that reply)
    :param wire_format: "auto" goes by the client's Accept header (event stream, NDJSON, else text);
        "chatstream" sends ChatStream's own frames, for front ends made for it
    :param app: same as calling `init_app(app)`
    """

    def __init__(
        self,
        *,
        model: Any = None,
        tokenizer: Any = None,
        device: Devices = None,
        num_of_concurrent_executions: int = 2,
        max_queue_size: int = 5,
        num_of_generation_threads: int | None = None,
        too_many_request_as_http_error: bool = False,
        use_mock_response: bool = False,
        mock_params: dict[str, Any] | None = None,
        chat_prompt_clazz: type[AbstractChatPrompt] | None = None,
        max_new_tokens: int = 256,
        context_len: int = 1024,
        temperature: float = 1.0,
        top_k: int | None = 50,
        top_p: float = 1.0,
        repetition_penalty: float | None = None,
        repetition_penalty_method: str = MULTIPLICATIVE,
        add_special_tokens: bool | None = None,
        request_handler: AbstractRequestHandler | None = None,
        logger: logging.Logger | None = None,
        kv_cache_slots: int | None = None,
        prompt_lookup_num_tokens: int | None = None,
        context_policy: str = "drop_oldest_turns",
        on_busy: str = "reject",
        wire_format: str = "auto",
        app: Flask | None = None,
    ) -> None:
        self.logger = _checked("logger", logger, logging.Logger, logging.getLogger("chatstream_flask"))
        self.params = SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            repetition_penalty_method=repetition_penalty_method,
        )
        self.source: ModelSource = make_source(
            model,
            tokenizer,
            device,
            context_len,
            add_special_tokens,
            use_mock_response,
            mock_params,
            prompt_lookup_num_tokens,
        )
        self._wire_format = WireFormatName(wire_format)
        if max_new_tokens >= self.source.context_len:
            raise ConfigError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt in a context of "
                f"{self.source.context_len} tokens (context_len={context_len})"
            )
        config = EngineConfig(
            max_running=num_of_concurrent_executions,
            max_queue_size=max_queue_size,
            num_of_generation_threads=(
                self.source.best_num_threads(num_of_concurrent_executions)
                if num_of_generation_threads is None
                else num_of_generation_threads
            ),
            context_len=self.source.context_len,
            prefill_chunk_len=self.source.prefill_chunk_len,
            kv_cache_slots=kv_cache_slots,
            num_devices=self.source.num_devices,
        )
        self.engine = Engine(config, self._make_runner)
        self.check_server = ServerCheck(self.engine)
        self._refuse_with_status = _checked(
            "too_many_request_as_http_error", too_many_request_as_http_error, bool
        )
        self.chat_prompt_clazz = _checked_class(chat_prompt_clazz)
        if self.chat_prompt_clazz is ChatPrompt and not use_mock_response:
            check_has_template(tokenizer)
        handler = _checked(
            "request_handler", request_handler, AbstractRequestHandler, SimpleSessionRequestHandler()
        )
        self._conversations = ConversationAccess(handler, self.chat_prompt_clazz, self.params)
        self._admission = Admission(
            engine=self.engine,
            source=self.source,
            conversations=self._conversations,
            shared_prefix=SharedPrefix(self.source, self.chat_prompt_clazz),
            params=self.params,
            context_policy=ContextPolicy(context_policy),
            on_busy=OnBusy(on_busy),
            check_server=self.check_server,
        )
        if app is not None:
            self.init_app(_checked("app", app, Flask))

    def __repr__(self) -> str:
        return f"<ChatStream {self.engine!r}>"

    # -- an app --------------------------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Reads CHATSTREAM_* from the app's config and makes sure that it has server-side conversations."""
        if "chatstream" in app.extensions:
            raise RuntimeError(f"{app!r} already has a ChatStream; one app has one")
        settings = Settings.from_app(app)
        check_gunicorn_that_loads_us(self.engine.config)
        self.engine.hung_after_sec = settings.hung_after_sec
        store = make_conversation_store(app, settings)
        reports = Reports(AccessLog(app, settings, self.logger))
        app.extensions["chatstream"] = AppState(
            self, settings, store, ReplyRegistry(settings.resume_sec), reports
        )
        set_log_language(self.logger, settings.locale)
        app.after_request(add_request_id_header)
        app.register_error_handler(ChatStreamError, self._refusal)  # of every view that uses this object
        app.teardown_request(close_lost_reply)

    def append_apis(self, app: Flask, opts: dict[str, Any]) -> None:
        """Adds views to the app, which need not have been given to this object before.

        :param opts: one of `{"all": True}`, `{"include": [names]}` and `{"exclude": [names]}` with the names
            of `views.API_NAMES`, and what else `views.create_chat_blueprint` takes
        """
        if "chatstream" not in app.extensions:
            self.init_app(app)
        append_apis(self, app, opts)

    def start_queue_worker(self) -> None:
        """Starts the generation threads now instead of at the first request; harmless when they run."""
        self.engine.start()

    # -- replies -------------------------------------------------------------------------------------

    def handle_chat_stream_request(
        self,
        request: Request,
        request_body: bytes | str | dict[str, Any] | None = None,
        callback: Callback | None = None,
        *,
        resumable: bool = False,
    ) -> Response:
        """The streaming response of POST /chat_stream, or a refusal; for a view to return.

        :param request: `flask.request`
        :param request_body: the JSON body, if the app has read it already or wants another one
        :param callback: `callback(request, message)` is called once when an accepted request has ended, in
            an app context but not in the request's; `message` is `success`,
            `client_disconnected_before_streaming`, `client_disconnected_while_streaming` or
            `unknown_error_occurred`
        :param resumable: the app has a view for `handle_resume_request`: an event stream that lost its reader
            goes on for CHATSTREAM_RESUME_SEC
        """
        request = getattr(request, "_get_current_object", lambda: request)()  # the proxy ends with the view
        state = self._state()
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        try:
            data = read_body(request, state.settings.max_body_len) if request_body is None else request_body
            body = parse_chat_request(data, self.params, state.settings.max_input_len)
            reply = self._admission.accept(app, state, request, body, callback)
        except ChatStreamError as error:
            return self._refusal(error)
        return self._response(request, reply, is_resumable=resumable)

    def handle_resume_request(self, request: Request, message_id: str) -> Response:
        """The rest of a reply after as many characters as `Last-Event-ID` (or `?offset=`) says, then live."""
        state = self._state()
        try:
            reply = state.replies.find(self._conversations.id_of(request), message_id)
            offset = parse_offset(request, reply.generation)
        except ChatStreamError as error:
            return self._refusal(error)
        return self._response(request, reply, is_resumable=True, offset=offset)

    def handle_cancel_request(self, request: Request, message_id: str) -> Response:
        """Ends a reply of the caller's; what it has said is kept, marked as interrupted. Idempotent."""
        try:
            reply = self._state().replies.find(self._conversations.id_of(request), message_id)
            self.engine.cancel(reply.generation)
        except NotFound as error:
            if self.get_chat_prompt(request).find_chat_content_by_message_id(message_id) is None:
                return self._refusal(error)
        return Response(status=HTTPStatus.NO_CONTENT)

    # -- the caller's conversation -------------------------------------------------------------------

    def handle_clear_context_request(self, request: Request) -> dict[str, Any]:
        """Forgets the caller's conversation; a reply in the making ends and is not kept."""
        conversation_id = self._conversations.id_of(request)
        self._conversations.delete(conversation_id)
        self._admission.stop_reply(self._state(), conversation_id)
        return {"success": True, "message": "Context successfully cleared"}

    def get_chat_prompt(self, request: Request) -> AbstractChatPrompt:
        """The conversation that a request belongs to, as it is kept now; for views and callbacks."""
        return self._conversations.of(request).prompt

    def get_running_reply(self, request: Request) -> Reply | None:
        """The reply in the making of the caller's conversation."""
        return self._state().replies.running(self._conversations.id_of(request))

    def get_generation_params(self, request: Request) -> dict[str, Any]:
        """What holds for the caller's conversation: its own settings over those of the constructor."""
        return self._conversations.generation_params(request)

    def set_generation_params(self, request: Request, given: dict[str, Any] | None) -> dict[str, Any]:
        """Changes the caller's own settings, those named only; None goes back to the constructor's.

        :raises BadRequest: a value is not allowed, or a name
        :raises ConversationBusy: a reply is in the making
        """
        self._conversations.set_generation_params(request, given)
        return self.get_generation_params(request)

    # ------------------------------------------------------------------------------------------------

    def _make_runner(self, thread: int) -> Runner:
        config = self.engine.config
        return self.source.make_runner(
            config.num_kept_slots(thread), config.num_of_generation_threads, config.device(thread)
        )

    def _response(self, request: Request, reply: Reply, *, is_resumable: bool, offset: int = 0) -> Response:
        wire = choose(self._wire_format, request.headers.get("Accept", ""), reply.message_id)
        grace_sec = self._state().settings.resume_sec if is_resumable and wire.is_resumable else 0.0
        return reply_response(self.engine, reply, wire, self._state().settings, request, grace_sec, offset)

    def _refusal(self, error: ChatStreamError) -> Response:
        if error.status >= 500 and not isinstance(error, NotAccepting):
            self.logger.error("a request failed: %s", error, exc_info=error.__cause__)
        response = problem_response(error, too_many_as_200=not self._refuse_with_status)
        self._state().reports.refused(error, response.status_code)
        return response

    def _state(self) -> AppState:
        state: AppState | None = current_app.extensions.get("chatstream")
        if state is None or state.chat_stream is not self:
            raise RuntimeError(f"this ChatStream was not set up for {current_app.name!r}; call init_app(app)")
        return state


def _checked(name: str, value: Any, kind: type, default: Any = None) -> Any:
    if value is None:
        value = default
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be a {kind.__name__}, not {value!r}")
    return value


def _checked_class(clazz: Any) -> type[AbstractChatPrompt]:
    if clazz is None:
        return ChatPrompt
    if not (isinstance(clazz, type) and issubclass(clazz, AbstractChatPrompt)):
        raise ConfigError(f"chat_prompt_clazz must be a class derived from AbstractChatPrompt, not {clazz!r}")
    return clazz
