"""POST /v1/chat/completions and /v1/completions: from the body to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Response, request

from ..chat.service import ChatService
from ..config import SamplingParams
from ..hooks import ReplyContext
from ..hooks.reply_context import Message
from ..hooks.tools import Tool
from ..http.request_body import read_body
from ..model_source import ModelSource
from ..reply_format.reply_parser import TextReply
from ..settings import Settings
from .answer import Answer, ChatAnswer, CompletionAnswer
from .answer_format import answer_format
from .answer_stream import AnswerStream
from .choice_starter import ChoiceStarter
from .errors import ApiError
from .generations import Generations, OnEnd
from .keys import visitor_of
from .models import Models
from .parse_body import parse_body
from .prompts import PromptEncoder
from .response_format import grammar_of
from .sampling import bounded, reasoning_limit, sampling_params
from .schema import Body, ChatBody, CompletionBody
from .shared_prefix import ApiSharedPrefix
from .stream_response import probe, stream_options, stream_response
from .tools import ToolUse, reply_parser, tool_use
from .whole_answer import whole_answer


class Completions:
    """The views of both kinds of completions."""

    def __init__(self, service: ChatService, models: Models, encoder: PromptEncoder) -> None:
        self._service = service
        self._source = service.source
        self._engine = service.engine
        self._models = models
        self._encoder = encoder
        self._shared_prefix = ApiSharedPrefix(
            self._source, encoder.template_kwargs, service.shared_system_texts
        )
        self._fingerprint = models.fingerprint(service.params)

    @property
    def settings(self) -> Settings:
        return self._service.state.settings

    def chat(self) -> Response:
        """Answer POST /v1/chat/completions."""
        body = parse_body(read_body(request, self.settings.max_body_len), ChatBody)
        with self.submit_chat(body) as generations:
            answer = ChatAnswer(*self._about_answer(body))
            return self._response(body, generations, answer, num_prompts=1)

    def text(self) -> Response:
        """Answer POST /v1/completions."""
        body = parse_body(read_body(request, self.settings.max_body_len), CompletionBody)
        with self._reserve(body) as generations:
            num_each = body.num_choices // len(body.prompts)
            prompts = [ids for prompt in body.prompts for ids in [self._prompt_ids(prompt, body)] * num_each]
            grammar = grammar_of(answer_format(body), ToolUse(), self._source.reply_format)
            messages = self._as_messages(body.prompts) if self._service.hooks else []
            context = self._begin_hooks(body, messages, self._params(body, grammar))
            params = bounded(context.params, body, prompts, self._engine.config.context_len)
            make_parsers = [
                partial(TextReply, self._source.decode(ids) if body.echo else "") for ids in prompts
            ]
            starter = ChoiceStarter(self._service, self._shared_prefix, body, context, generations)
            choices = zip(prompts, make_parsers, strict=True)
            generations.submit(
                [starter.start(index, ids, params, make) for index, (ids, make) in enumerate(choices)]
            )
            answer = CompletionAnswer(
                *self._about_answer(body),
                prompts=prompts if body.return_token_ids else None,
                names_tokens_by_id=bool(body.return_tokens_as_token_ids),
                echoes=body.echoes_logprobs,
            )
            return self._response(body, generations, answer, num_prompts=len(body.prompts))

    # -- into the queue ------------------------------------------------------------------------------

    def submit_chat(self, body: ChatBody, on_end: OnEnd | None = None) -> Generations:
        """Submit the choices of a chat request; the caller reads and closes them.

        :param on_end: called with each choice that has ended, before its readers see that
        :raises ApiError: something in the request is not allowed
        :raises TooManyRequests: the places are taken
        """
        use = tool_use(body)
        messages, template_kwargs = self._encoder.check(body)
        with self._reserve(body) as generations:
            wanted = answer_format(body)
            grammar = grammar_of(wanted, use, self._source.reply_format)
            if grammar is not None and body.continue_final_message:
                raise ApiError(
                    "continue_final_message cannot be combined with a format of the answer, a forced tool "
                    "call or strict functions, which hold from the beginning of a message",
                    param="continue_final_message",
                )
            limit = reasoning_limit(body, self._service.params, self._service.template_params)
            params = replace(self._params(body, grammar), max_reasoning_tokens=limit)
            tools = {} if wanted else self._own_tools(body)
            if tools:
                use = ToolUse([tool.definition for tool in tools.values()])
            context = self._begin_hooks(body, messages, params)
            messages = context.with_added_text(messages)

            def encode(more: Sequence[Message] = ()) -> list[int]:
                return self._cut(self._encoder.encode([*messages, *more], template_kwargs, use), body)

            ids = encode()
            params = bounded(context.params, body, [ids], self._engine.config.context_len)
            is_streamed = bool(body.stream) and not tools
            make_parser = partial(
                reply_parser, use, self._source.reply_format, is_free=wanted is None, streams=is_streamed
            )
            starter = ChoiceStarter(
                self._service,
                self._shared_prefix,
                body,
                context,
                generations,
                on_end=on_end,
                tools=tools,
                encode=encode,
            )
            generations.submit(
                [starter.start(index, ids, params, make_parser) for index in range(body.num_choices)]
            )
            return generations

    def _own_tools(self, body: ChatBody) -> dict[str, Tool]:
        """Return the app's tools; none for a client with tools, or that asks for what they would disturb.

        Nobody can confirm a call here, so tools that need it are left out.
        """
        if body.tools or body.tool_choice not in (None, "auto") or body.continue_final_message:
            return {}
        if body.num_logprobs is not None:
            return {}
        return {name: tool for name, tool in self._service.hooks.tools.items() if not tool.confirm}

    def _reserve(self, body: Body) -> Generations:
        """Reserve places for the choices, after all cheap checks and before any costly work.

        :raises ApiError: the model does not exist, or there are more choices than places
        :raises TooManyRequests: the places are taken
        """
        self._models.resolve(body.model)
        num_places = self._engine.config.num_api_places
        if body.num_choices > num_places:
            raise ApiError(
                f"the request has {body.num_choices} choices, but the server only has {num_places} places",
                param="n",
            )
        self._service.check_server(request.environ)
        self._engine.start(again=False)
        visitor = visitor_of(request, self.settings.api_keys)
        return Generations(self._engine, body.num_choices, visitor, self.settings.visitor_limits)

    def _prompt_ids(self, prompt: str | list[int], body: CompletionBody) -> list[int]:
        if isinstance(prompt, str):
            prompt_ids = self._source.encode_text(prompt, add_special_tokens=body.add_special_tokens)
            return self._cut(prompt_ids, body)
        self._source.check_ids(prompt)
        return self._cut(prompt, body)

    def _cut(self, prompt_ids: list[int], body: Body) -> list[int]:
        """Return the last tokens of a prompt, if the client wants no more of it."""
        num = body.truncate_prompt_tokens
        if num in (0, -1):
            num_new = 1 if body.max_new_tokens is None else body.max_new_tokens
            num = self._engine.config.context_len - num_new
        return prompt_ids if num is None else prompt_ids[-max(num, 1) :]

    def _params(self, body: Body, grammar: str | None) -> SamplingParams:
        """Return the sampling parameters, not limited to the context yet."""
        params = sampling_params(body, self._service.params, grammar, self._bad_words(body))
        self._source.check(params)
        return params

    def _begin_hooks(
        self, body: Body, messages: list[dict[str, Any]], params: SamplingParams
    ) -> ReplyContext:
        """Call the app's `before_reply`.

        :raises ChatStreamError: a hook refused or failed
        :raises ApiError: the client asks for tokens, whose text hooks might have changed
        """
        hooks = self._service.hooks
        asks_for_tokens = body.num_logprobs is not None or getattr(body, "return_token_ids", None)
        if hooks.on_text and asks_for_tokens:
            raise ApiError(
                "logprobs and token ids are not available here, as this app may change the text of replies",
                param="logprobs",
                code="unsupported_parameter",
            )
        if hooks and isinstance(body, ChatBody) and body.prompt_logprobs is not None:
            raise ApiError(
                "prompt_logprobs are not available here, as this app may add to the prompt",
                param="prompt_logprobs",
                code="unsupported_parameter",
            )
        context = ReplyContext(
            request._get_current_object(),  # type: ignore[attr-defined]
            messages,
            params,
            visitor=visitor_of(request, self.settings.api_keys),
        )
        hooks.begin(context)
        return context

    def _as_messages(self, prompts: Sequence[str | list[int]]) -> list[dict[str, Any]]:
        """Return prompts as hooks see them."""
        texts = (given if isinstance(given, str) else self._source.decode(given) for given in prompts)
        return [{"role": "user", "content": text} for text in texts]

    def _bad_words(self, body: Body) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each bad word, at the beginning of a text and after a space."""
        spelled = (text for word in body.bad_words or () for text in (word, f" {word.lstrip()}"))
        ids = (tuple(self._source.encode_text(text, add_special_tokens=False)) for text in spelled)
        return tuple(dict.fromkeys(ids))

    # -- out of it -----------------------------------------------------------------------------------

    def _about_answer(self, body: Body) -> tuple[str, str, ModelSource, bool, int | None]:
        return (
            self._models.resolve(body.model),
            self._fingerprint,
            self._source,
            body.num_logprobs is not None,
            body.prompt_logprobs,
        )

    def _response(
        self, body: Body, generations: Generations, answer: Answer, *, num_prompts: int
    ) -> Response:
        settings = self.settings
        if not body.stream:
            return whole_answer(generations, answer, probe(), settings.probe_sec, num_prompts)
        has_usage = body.stream_options is not None and body.stream_options.include_usage
        options = stream_options(settings)
        stream = AnswerStream(generations, answer, num_prompts=num_prompts, has_usage=has_usage, **options)
        return stream_response(stream)
