"""ChatStream: the Flask extension that joins requests, conversations and the engine."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app, g
from werkzeug.exceptions import RequestEntityTooLarge

from .app_state import AppState, make_conversation_store
from .chat_request import (
    SESSION_FIELDS,
    ChatRequest,
    merge_kept,
    parse_chat_request,
    parse_generation_params,
)
from .config import MULTIPLICATIVE, ContextPolicy, EngineConfig, OnBusy, SamplingParams, WireFormatName
from .conversation import Conversation
from .conversation.turn import Turn
from .disconnect import make_probe
from .engine.engine import Engine
from .engine.request import GenerationRequest
from .engine.runner import Runner
from .errors import BadRequest, BodyTooLarge, ChatStreamError, ConfigError
from .model_source import ModelSource, make_source
from .problem import problem_response
from .prompts import AbstractChatPrompt, ChatPrompt
from .prompts.chat_prompt import check_has_template
from .prompts.replacer import Replacer
from .reply import Callback, Reply, hold
from .request_handler import AbstractRequestHandler, SimpleSessionRequestHandler
from .settings import Settings
from .stream import ReplyStream
from .wire_format import choose

if TYPE_CHECKING:
    import torch


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
    :param device: "cpu", "cuda", "cuda:0", "mps" or a torch.device; None leaves the model where it is
    :param num_of_concurrent_executions: replies generated at once
    :param max_queue_size: requests that may wait beyond those; one more is refused at once
    :param num_of_generation_threads: threads that share the replies; None: two on CPU, else one
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
        device: str | torch.device | None = None,
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
        self._source: ModelSource = make_source(
            model, tokenizer, device, context_len, add_special_tokens, use_mock_response, mock_params
        )
        self._context_policy = ContextPolicy(context_policy)
        self._on_busy = OnBusy(on_busy)
        self._wire_format = WireFormatName(wire_format)
        if max_new_tokens >= self._source.context_len:
            raise ConfigError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt in a context of "
                f"{self._source.context_len} tokens (context_len={context_len})"
            )
        config = EngineConfig(
            num_of_concurrent_executions=num_of_concurrent_executions,
            max_queue_size=max_queue_size,
            num_of_generation_threads=(
                self._source.best_num_threads(num_of_concurrent_executions)
                if num_of_generation_threads is None
                else num_of_generation_threads
            ),
            context_len=self._source.context_len,
            prefill_chunk_len=self._source.prefill_chunk_len,
        )
        self.engine = Engine(config, self._make_runner)
        self._refuse_with_status = _checked(
            "too_many_request_as_http_error", too_many_request_as_http_error, bool
        )
        self._chat_prompt_clazz = _checked_class(chat_prompt_clazz)
        if self._chat_prompt_clazz is ChatPrompt and not use_mock_response:
            check_has_template(tokenizer)
        self._request_handler: AbstractRequestHandler = _checked(
            "request_handler", request_handler, AbstractRequestHandler, SimpleSessionRequestHandler()
        )
        if app is not None:
            self.init_app(_checked("app", app, Flask))

    def __repr__(self) -> str:
        return f"<ChatStream {self.engine!r}>"

    # -- Flask -----------------------------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Reads CHATSTREAM_* from the app's config and makes sure that it has server-side conversations."""
        if "chatstream" in app.extensions:
            raise RuntimeError(f"{app!r} already has a ChatStream; one app has one")
        settings = Settings.of(app)
        app.extensions["chatstream"] = AppState(self, settings, make_conversation_store(app, settings))
        app.register_error_handler(ChatStreamError, self._refusal)  # of every view that uses this object
        app.teardown_request(_close_lost_reply)

    def start_queue_worker(self) -> None:
        """Starts the generation threads now instead of at the first request; harmless when they run."""
        self.engine.start()

    def handle_chat_stream_request(
        self,
        request: Request,
        request_body: bytes | str | dict[str, Any] | None = None,
        callback: Callback | None = None,
    ) -> Response:
        """The streaming response of POST /chat_stream, or a refusal; for a view to return.

        :param request: `flask.request`
        :param request_body: the JSON body, if the app has read it already or wants another one
        :param callback: `callback(request, message)` is called once when an accepted request has ended, in
            an app context but not in the request's; `message` is `success`,
            `client_disconnected_before_streaming`, `client_disconnected_while_streaming` or
            `unknown_error_occurred`
        """
        request = getattr(request, "_get_current_object", lambda: request)()  # the proxy ends with the view
        settings = self._state().settings
        try:
            data = _body_of(request, settings) if request_body is None else request_body
            body = parse_chat_request(data, self.params, settings.max_input_len)
            return self._accept(request, body, settings, callback)
        except ChatStreamError as error:
            return self._refusal(error)

    def handle_clear_context_request(self, request: Request) -> dict[str, Any]:
        """Forgets the caller's conversation; a reply in the making ends and is not kept."""
        conversation_id = self._conversation_id(request)
        self._request_handler.get_store().delete(conversation_id)
        self._stop_reply(conversation_id)
        return {"success": True, "message": "Context successfully cleared"}

    def get_chat_prompt(self, request: Request) -> AbstractChatPrompt:
        """The conversation that a request belongs to, as it is kept now; for views and callbacks."""
        return self._load(self._conversation_id(request)).prompt

    def get_generation_params(self, request: Request) -> dict[str, Any]:
        """What holds for the caller's conversation: its own settings over those of the constructor."""
        params = merge_kept(self.params, self._load(self._conversation_id(request)).generation_params)
        return {name: getattr(params, name) for name in sorted(SESSION_FIELDS)}

    def set_generation_params(self, request: Request, given: dict[str, Any] | None) -> dict[str, Any]:
        """Changes the caller's own settings, those named only; None goes back to the constructor's.

        :raises BadRequest: a value is not allowed, or a name
        :raises ConversationBusy: a reply is in the making
        """
        checked = None if given is None else parse_generation_params(given, self.params)
        conversation_id = self._conversation_id(request)
        lease = self._request_handler.get_store().hold(conversation_id)
        try:
            conversation = self._load(conversation_id)
            conversation.generation_params = (
                {} if checked is None else conversation.generation_params | checked
            )
            lease.save(conversation.to_record())
        finally:
            lease.close()
        return self.get_generation_params(request)

    def _make_runner(self, thread: int) -> Runner:
        config = self.engine.config
        return self._source.make_runner(config.num_slots(thread), config.num_of_generation_threads)

    # -- one request -----------------------------------------------------------------------------------

    def _accept(
        self, request: Request, body: ChatRequest, settings: Settings, callback: Callback | None
    ) -> Response:
        self.engine.start(again=False)
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        replies = self._state().replies
        with ExitStack() as undo:
            place = self.engine.reserve()
            undo.callback(place.close)
            conversation_id = self._conversation_id(request)
            turn = self._begin_turn(request, conversation_id, body, settings, undo)
            params = _with_stop_strings(
                body.params(self.params, turn.conversation.generation_params), turn.prompt
            )
            max_tokens = self.engine.config.context_len - params.max_new_tokens
            fitted = self._source.fit(turn.prompt, max_tokens, self._context_policy)
            on_end = partial(replies.remove, conversation_id)
            reply = Reply(app, request, turn, on_end, callback, self.logger)
            generation = GenerationRequest(
                fitted.token_ids,
                params,
                stop_ids=self._source.stop_ids(params.stop),
                text_filter=_text_filter(turn.prompt),
                before_done=reply.keep,
                after_done=reply.tell,
                timeout_sec=settings.request_timeout_sec,
            )
            replies.add(conversation_id, generation)
            undo.callback(on_end, generation)
            self.engine.submit(generation, place)
            undo.pop_all()
        return self._response(request, generation, settings, turn.message_id, fitted.num_dropped_turns)

    def _begin_turn(
        self, request: Request, conversation_id: str, body: ChatRequest, settings: Settings, undo: ExitStack
    ) -> Turn:
        lease = hold(
            self._request_handler.get_store(),
            conversation_id,
            self._on_busy,
            stop_running=partial(self._stop_reply, conversation_id),
            is_gone=make_probe(request.environ) or (lambda: False),
            timeout_sec=settings.request_timeout_sec,
        )
        undo.callback(lease.close)
        turn = Turn(self._load(conversation_id), lease, settings.max_turns, settings.max_conversation_bytes)
        if body.regenerate:
            turn.ask_again()
        else:
            turn.ask(body.user_input)
        return turn

    def _conversation_id(self, request: Request) -> str:
        """Asked once for each request, so that a callback finds the same conversation."""
        known: str | None = request.environ.get("chatstream.conversation_id")
        if known is None:
            known = self._request_handler.get_conversation_id(request)
            request.environ["chatstream.conversation_id"] = known
        return known

    def _load(self, conversation_id: str) -> Conversation:
        record = self._request_handler.get_store().load(conversation_id)
        return Conversation.from_record(record, self._chat_prompt_clazz)

    def _stop_reply(self, conversation_id: str) -> None:
        if generation := self._state().replies.get(conversation_id):
            self.engine.cancel(generation)

    def _response(
        self,
        request: Request,
        generation: GenerationRequest,
        settings: Settings,
        message_id: str,
        dropped: int,
    ) -> Response:
        wire = choose(self._wire_format, request.headers.get("Accept", ""))
        stream = ReplyStream(
            self.engine,
            generation,
            wire,
            is_gone=make_probe(request.environ),
            probe_sec=settings.probe_sec,
            heartbeat_sec=settings.heartbeat_sec,
            extra={"message_id": message_id, "num_dropped_turns": dropped},
        )
        response = Response(stream, content_type=wire.content_type, headers=wire.headers)
        response.headers["X-ChatStream-Last-Generated-Message-Id"] = message_id
        if dropped:
            response.headers["X-ChatStream-Truncated"] = f"turns={dropped}"
        response.call_on_close(stream.close)
        g.chatstream_reply = stream
        return response

    def _refusal(self, error: ChatStreamError) -> Response:
        if error.status >= 500:
            self.logger.error("a request failed: %s", error, exc_info=error.__cause__)
        return problem_response(error, too_many_as_200=not self._refuse_with_status)

    def _state(self) -> AppState:
        state: AppState | None = current_app.extensions.get("chatstream")
        if state is None or state.chat_stream is not self:
            raise RuntimeError(f"this ChatStream was not set up for {current_app.name!r}; call init_app(app)")
        return state


def _close_lost_reply(error: BaseException | None) -> None:
    """Nobody will read or close it if the request failed after the view, as when no session can be saved."""
    stream: ReplyStream | None = g.pop("chatstream_reply", None)
    if error is not None and stream is not None:
        stream.close()


def _with_stop_strings(params: SamplingParams, prompt: AbstractChatPrompt) -> SamplingParams:
    """Those of the request and those of the prompt's format, each once."""
    try:
        return replace(params, stop=tuple(dict.fromkeys((*params.stop, *prompt.get_final_stop_strs()))))
    except ConfigError as error:
        raise BadRequest(f"with those of the chat prompt: {error}") from error


def _text_filter(prompt: AbstractChatPrompt) -> Replacer | None:
    rules = prompt.get_replacement_when_output()
    return Replacer(rules) if rules else None


def _body_of(request: Request, settings: Settings) -> bytes:
    if not request.is_json:
        raise BadRequest("the body must be JSON, sent with Content-Type: application/json")
    app_max_len = request.max_content_length  # MAX_CONTENT_LENGTH
    max_len = settings.max_body_len if app_max_len is None else min(app_max_len, settings.max_body_len)
    request.max_content_length = max_len
    try:
        return request.get_data()
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(f"the body may have at most {max_len} bytes") from error


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
