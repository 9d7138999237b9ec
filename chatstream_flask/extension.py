"""ChatStream: the Flask extension; what it does with requests is in `chat.service`."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask

from .chat.app_state import EXTENSION, AppState, first_state_of, make_conversation_store, purge
from .chat.arguments import checked_prompt_class, checked_texts, checked_type
from .chat.instance_name import DEFAULT_NAME
from .chat.reply_registry import ReplyRegistry
from .chat.reply_response import close_lost_reply
from .chat.request_handler import AbstractRequestHandler, SimpleSessionRequestHandler
from .chat.service import ChatService, engine_configs_of
from .chat.set_up_order import SetUpOrder
from .chat.shared_settings import SharedSettings
from .config import (
    MAX_RUNNING,
    MULTIPLICATIVE,
    ContextPolicy,
    EngineConfig,
    OnBusy,
    SamplingParams,
    WireFormatName,
    check_int,
)
from .conversation.sweeper import Sweeper
from .errors import ChatStreamError, ConfigError
from .http.cookie_check import check_cookie_settings
from .http.reloader import only_watches_files
from .http.server_check import check_gunicorn_that_loads_us
from .model_source import load_pretrained, load_remote, make_source
from .monitoring.access_log import AccessLog
from .monitoring.japanese import set_log_language
from .monitoring.origin import add_request_id_header
from .monitoring.reports import Reports
from .nodes.make_node import make_node
from .prompts import AbstractChatPrompt, ChatPrompt
from .prompts.chat_template import check_has_template
from .prompts.template_params import TemplateParams
from .settings import Settings
from .views import append_apis

SHARED_STORES = ("redis", "postgres")  # URLs of stores that other machines reach

if TYPE_CHECKING:
    from .inference.devices import Devices, DtypeLike
    from .nodes.node import Node
    from .remote.engines import Engines


class ChatStream(ChatService):
    """A chat for Flask apps: one model, one queue, any number of apps.

    An app may have several, each with a name, a model and a queue of its own.

    ```
    chat_stream = ChatStream(model=model, tokenizer=tokenizer, app=app)

    @app.post("/chat_stream")
    def chat():
        return chat_stream.handle_chat_stream_request(request)
    ```

    A wrong setting raises ConfigError here. A model that cannot be served or does not fit into memory raises
    when the generation threads start: in `start_queue_worker()`, or else at the first request.

    :param name: for an app with several ChatStreams: each needs its own name, except one. One with a name
        has its routes below `/<name>` and its own conversations
    :param model: a transformers causal language model
    :param tokenizer: its tokenizer; with an engine also the folder or hub id of one
    :param engine: URLs of engines that have the model, in place of one here: vLLM, SGLang, llama.cpp's server
        or servers of this package, separated by commas; or "file:" and the path of a file with them
    :param model_name: name for clients; None is the name of the model's folder, or its id on the hub
    :param device: "cpu", "cuda", "cuda:0", "mps" or a torch.device; None leaves the model where it is, for
        example where a `device_map` has put its parts. A list puts a copy with its own threads on each
    :param num_of_concurrent_executions: replies that are generated at the same time
    :param max_queue_size: further requests that may wait; beyond that they are refused
    :param max_api_queue_size: the same for requests of `/v1`, which then take no place from the chat; None:
        they share `max_queue_size`
    :param num_of_generation_threads: threads that share the replies, the same number on each device; None is
        two on CPU for many replies, else one
    :param too_many_request_as_http_error: refuse with status 429, not with 200 and `{"error": ...}`
    :param use_mock_response: answer with fixed phrases; needs neither a model nor torch
    :param mock_params: `type` ("round", "long", "echo", "reasoning"), `initial_wait_sec`,
        `time_per_token_sec`; None is `{"type": "round"}`
    :param chat_prompt_clazz: class that makes a prompt of a conversation; ChatPrompt uses the chat template
    :param max_new_tokens: maximum number of tokens of a reply, without what the model reasons before it
    :param max_reasoning_tokens: maximum number of tokens that a model reasons before it answers; then it is
        made to answer. None is as many as the context has room for
    :param enable_thinking: whether the model reasons; None leaves it to its chat template
    :param reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max", for chat templates
        that know it
    :param chat_template_kwargs: further arguments of the chat template
    :param context_len: maximum number of tokens of prompt and reply together; the model's own limit if that
        is lower
    :param temperature: 0 to 2, 0 is greedy
    :param top_k: sample from the k most likely tokens; None or 0 turns it off
    :param top_p: sample from the most likely tokens that together have this probability; 1 turns it off
    :param min_p: leave out tokens below this fraction of the highest probability; 0 turns it off
    :param repetition_penalty: for tokens that have occurred in prompt or reply; None turns it off
    :param repetition_penalty_method: "multiplicative" (as in transformers) or "subtractive"
    :param add_special_tokens: for prompt classes that render text; None is the tokenizer's default
    :param request_handler: says which conversation a request belongs to, and where it is stored
    :param logger: logger of this object; the default is "chatstream_flask"
    :param kv_cache_slots: conversations whose keys and values stay in memory, so that the next turn computes
        only its new tokens; None is as many as run at the same time
    :param prefill_priority: 0 to 1, the share of a step's time that prompts may take while replies are
        running: more brings first tokens earlier, less makes the pauses of running replies shorter. A pause
        of 0.05 seconds is always allowed; with 1 prompts come first
    :param shared_system_texts: system texts that callers of `/v1` often send: a prompt that begins with one
        reuses its keys and values, whoever computed them. Only what no visitor has written belongs here; the
        system text of `chat_prompt_clazz` and the one that a chat template writes by itself are shared anyway
    :param prompt_lookup_num_tokens: prompt lookup decoding of greedy replies: the most draft tokens per
        step, taken from where the last tokens occurred before in prompt or reply. They are used only while
        measured to be faster; None or 0 turns it off
    :param context_policy: for a conversation longer than the context: "drop_oldest_turns", "error", or
        "keep_system_and_recent", which drops the examples of the prompt class first
    :param on_busy: for a request whose conversation has a running reply: "reject" (409), "queue" (waits) or
        "replace" (cancels that reply)
    :param wire_format: "auto" follows the client's Accept header (event stream, NDJSON, else text);
        "chatstream" sends the frames of the original ChatStream, for its front ends
    :param app: same as calling `init_app(app)`
    """

    def __init__(
        self,
        *,
        name: str = DEFAULT_NAME,
        model: Any = None,
        tokenizer: Any = None,
        engine: str | Sequence[str] | Engines | None = None,
        model_name: str | None = None,
        device: Devices = None,
        num_of_concurrent_executions: int = 2,
        max_queue_size: int = 5,
        max_api_queue_size: int | None = None,
        num_of_generation_threads: int | None = None,
        too_many_request_as_http_error: bool = False,
        use_mock_response: bool = False,
        mock_params: dict[str, Any] | None = None,
        chat_prompt_clazz: type[AbstractChatPrompt] | None = None,
        max_new_tokens: int = 256,
        max_reasoning_tokens: int | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        context_len: int = 1024,
        temperature: float = 1.0,
        top_k: int | None = 50,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float | None = None,
        repetition_penalty_method: str = MULTIPLICATIVE,
        add_special_tokens: bool | None = None,
        request_handler: AbstractRequestHandler | None = None,
        logger: logging.Logger | None = None,
        kv_cache_slots: int | None = None,
        prefill_priority: float = 0.63,
        shared_system_texts: Sequence[str] = (),
        prompt_lookup_num_tokens: int | None = None,
        context_policy: str = "drop_oldest_turns",
        on_busy: str = "reject",
        wire_format: str = "auto",
        app: Flask | None = None,
    ) -> None:
        params = SamplingParams(
            max_new_tokens=max_new_tokens,
            max_reasoning_tokens=max_reasoning_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            repetition_penalty_method=repetition_penalty_method,
        )
        check_int("num_of_concurrent_executions", num_of_concurrent_executions, 1, MAX_RUNNING)
        source = make_source(
            model,
            tokenizer,
            device,
            context_len,
            add_special_tokens,
            use_mock_response,
            mock_params,
            prompt_lookup_num_tokens,
            engine,
        )
        source.model_name = checked_type("model_name", model_name, str, source.model_name)
        if max_new_tokens >= source.context_len:
            raise ConfigError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt in a context of "
                f"{source.context_len} tokens (context_len={context_len})"
            )
        prompt_class = checked_prompt_class(chat_prompt_clazz)
        if prompt_class is ChatPrompt and not use_mock_response:
            check_has_template(source.tokenizer)
        super().__init__(
            name=name,
            source=source,
            engine_config=EngineConfig(
                max_running=num_of_concurrent_executions,
                max_queue_size=max_queue_size,
                max_api_queue_size=max_api_queue_size,
                num_of_generation_threads=(
                    source.best_num_threads(num_of_concurrent_executions)
                    if num_of_generation_threads is None
                    else num_of_generation_threads
                ),
                context_len=source.context_len,
                prefill_chunk_len=source.prefill_chunk_len,
                prefill_priority=prefill_priority,
                kv_cache_slots=kv_cache_slots,
                num_devices=source.num_devices,
            ),
            params=params,
            template_params=TemplateParams(
                enable_thinking=enable_thinking,
                reasoning_effort=reasoning_effort,
                chat_template_kwargs=chat_template_kwargs or {},
            ),
            chat_prompt_clazz=prompt_class,
            request_handler=checked_type(
                "request_handler", request_handler, AbstractRequestHandler, SimpleSessionRequestHandler()
            ),
            context_policy=ContextPolicy(context_policy),
            on_busy=OnBusy(on_busy),
            wire_format=WireFormatName(wire_format),
            shared_system_texts=checked_texts("shared_system_texts", shared_system_texts),
            refuses_with_status=checked_type(
                "too_many_request_as_http_error", too_many_request_as_http_error, bool
            ),
            logger=checked_type("logger", logger, logging.Logger, logging.getLogger("chatstream_flask")),
        )
        self._shared_settings = SharedSettings()
        self.node: Node | None = None  # with CHATSTREAM_SHARED_REDIS
        if app is not None:
            self.init_app(checked_type("app", app, Flask))

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        dtype: DtypeLike = "auto",
        weights: str = "auto",
        device: Devices = None,
        revision: str | None = None,
        chat_template: str | None = None,
        engine: str | Sequence[str] | None = None,
        app: Flask | None = None,
        **options: Any,
    ) -> ChatStream:
        """Load a model and its tokenizer, and return a ChatStream with the settings that the model asks for.

        Where an argument is not given, or None, temperature, top_k, top_p, min_p, repetition_penalty and
        max_new_tokens are those of the model's generation config, if it has them; context_len is what the
        model was trained for, or what a part of the free memory holds; max_new_tokens is half of it.

        On CUDA the free memory is asked for unless context_len is given: a process that loads the model so
        must not be forked afterwards.

        Under `flask run --debug` the model is loaded in the process that serves, and not in the one that only
        watches files: there, a mock stands in for it.

        :param path_or_hub_id: folder or hub id of a model, or of an adapter saved by peft, which is merged
            into its base model; a GGUF file; or "smollm2", which is fetched from the package index
        :param dtype: "float32", "bfloat16", "float16", or "auto": as saved, but float32 becomes bfloat16
            where the compiled decoder reads it in half the time, on CPU
        :param weights: "int8" or "int4" rounds the matrices to 8 or 4 bits, on CPU: less memory, and faster
        :param device: as in the constructor; None is the fastest device of this machine
        :param revision: branch, tag or commit on the hub
        :param chat_template: text of a Jinja template, in place of the tokenizer's own
        :param engine: as in the constructor: of the model only the tokenizer and the generation config are
            read, and context_len is what the engines allow
        :param options: further arguments of the constructor
        :raises ConfigError: the model cannot be loaded, or an argument is not allowed; as far as it can be
            told without the weights, before they are read
        :raises UnsupportedModel: the model cannot be served
        """
        inspect.signature(cls).bind(**options)  # a misspelt name is told before the weights are read
        if only_watches_files():
            kept = {name: options[name] for name in ("name", "request_handler") if name in options}
            return cls(use_mock_response=True, app=app, **kept)
        if engine is not None:
            if device is not None or revision is not None or weights != "auto":
                raise ConfigError("device, revision and weights are those of the engine: leave them out")
            pretrained = load_remote(engine, path_or_hub_id, options, chat_template)
        else:
            pretrained = load_pretrained(
                path_or_hub_id,
                options,
                dtype=dtype,
                weights=weights,
                device=device,
                revision=revision,
                chat_template=chat_template,
            )
        chat_stream = cls(**pretrained.options)
        chat_stream.param_origins = pretrained.origins
        if app is not None:
            chat_stream.init_app(checked_type("app", app, Flask))
        return chat_stream

    def __repr__(self) -> str:
        return f"<ChatStream {self.engine!r}>"

    # -- an app --------------------------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Set an app up: read CHATSTREAM_* from its config and prepare the store of its conversations.

        :raises ConfigError: a key of the config is unknown or not allowed, or the store cannot be used
        :raises RuntimeError: the app already has a ChatStream of this name
        """
        others = chat_streams_of(app)
        if any(other.name == self.name for other in others):
            raise RuntimeError(
                f"{app!r} already has a ChatStream named {str(self.name)!r}; give each further one a name of "
                'its own: ChatStream(name="large")'
            )
        settings = Settings.from_app(app)
        self._shared_settings.check(app, settings)
        if not others:
            check_cookie_settings(app, settings, self.logger)
        check_gunicorn_that_loads_us([self.engine.config, *engine_configs_of(app)])
        self.engine.hung_after_sec = settings.hung_after_sec
        if settings.prefill_priority is not None:
            self.engine.config = replace(self.engine.config, prefill_priority=settings.prefill_priority)
        first = first_state_of(app)
        store = first.store if first else make_conversation_store(app, settings)
        sweeper = first.sweeper if first else Sweeper(partial(purge, app, store), settings.store_sweep_sec)
        reports = Reports(AccessLog(app, settings, self.logger))
        if settings.shared_redis is not None and self.engine.sharing is None:
            self.node = self.engine.sharing = make_node(settings.shared_redis, self.name)
        elif self.node is None and str(settings.store).startswith(SHARED_STORES):
            self.logger.info(
                "CHATSTREAM_SHARED_REDIS is not set: limits, turns and running replies are those of this "
                "server alone, whatever other servers use its store"
            )
        replies = ReplyRegistry(settings.resume_sec, self.node)
        state = AppState(settings, store, sweeper, replies, reports, SetUpOrder(app))
        app.extensions.setdefault(EXTENSION, {})[self] = state
        set_log_language(self.logger, settings.locale)
        if not others:
            app.after_request(add_request_id_header)
            app.register_error_handler(ChatStreamError, self.refuse)  # raised in views of the app
            app.teardown_request(close_lost_reply)

    def append_apis(self, app: Flask, opts: dict[str, Any]) -> None:
        """Register the chat API with an app, which is set up first if it was not.

        :param opts: one of `{"all": True}`, `{"include": [names]}` and `{"exclude": [names]}`, with names
            from `views.API_NAMES`, and further options of `views.create_chat_blueprint`
        :raises ConfigError: an option or a name is unknown
        """
        if self not in chat_streams_of(app):
            self.init_app(app)
        append_apis(self, app, opts)


def chat_streams_of(app: Flask) -> list[ChatStream]:
    """Return the ChatStreams that were set up for an app."""
    return list(app.extensions.get(EXTENSION, ()))
