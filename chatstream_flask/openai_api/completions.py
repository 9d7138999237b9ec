"""POST /v1/chat/completions and /v1/completions: from the body to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Response, request

from ..chat.service import ChatService
from ..config import SamplingParams
from ..engine.outcome import Outcome
from ..engine.request import GenerationRequest
from ..hooks import ReplyContext
from ..hooks.hooked_reply import HookedReply
from ..hooks.reply_context import Message
from ..hooks.tools import Tool
from ..http.request_body import read_body
from ..model_source import ModelSource
from ..model_source.reasoning import reasoning_of
from ..monitoring.origin import Origin
from ..reply_format.reply_parser import ReplyParser, TextReply
from ..reply_format.tools.call_parser import ToolCallParser
from ..reply_format.tools.syntax import forced_syntax
from ..settings import Settings
from .answer import Answer, ChatAnswer, CompletionAnswer
from .answer_format import answer_format
from .answer_stream import AnswerStream
from .errors import ApiError
from .generations import Choice, Generations, OnEnd
from .keys import cache_owner_of, visitor_of
from .models import Models
from .parse_body import parse_body
from .prompts import PromptEncoder, template_params
from .response_format import grammar_of
from .sampling import bounded, for_choice, sampling_params
from .schema import Body, ChatBody, CompletionBody
from .shared_prefix import ApiSharedPrefix
from .stream_response import probe, stream_options, stream_response
from .tools import ToolUse, tool_use
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
            texts = [
                given if isinstance(given, str) else self._source.decode(given) for given in body.prompts
            ]
            messages = [{"role": "user", "content": text} for text in texts]
            context = self._begin_hooks(body, messages, self._params(body, grammar))
            params = bounded(context.params, body, prompts, self._engine.config.context_len)
            make_parsers = [
                partial(TextReply, self._source.decode(ids) if body.echo else "") for ids in prompts
            ]
            self._submit(body, generations, prompts, params, make_parsers, context)
            answer = CompletionAnswer(
                *self._about_answer(body),
                prompts=prompts if body.return_token_ids else None,
                names_tokens_by_id=bool(body.return_tokens_as_token_ids),
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
            params = replace(self._params(body, grammar), max_reasoning_tokens=self._reasoning_limit(body))
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
            make_parser = partial(self._parser, use, is_free=wanted is None, streams=is_streamed)
            num = body.num_choices
            self._submit(
                body, generations, [ids] * num, params, [make_parser] * num, context, on_end, tools, encode
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
            num = self._engine.config.context_len - (body.max_new_tokens or 1)
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
        context = ReplyContext(
            request._get_current_object(),  # type: ignore[attr-defined]
            messages,
            params,
            visitor=visitor_of(request, self.settings.api_keys),
        )
        HookedReply(hooks, context).begin()
        return context

    def _bad_words(self, body: Body) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each bad word, at the beginning of a text and after a space."""
        spelled = (text for word in body.bad_words or () for text in (word, f" {word.lstrip()}"))
        ids = (tuple(self._source.encode_text(text, add_special_tokens=False)) for text in spelled)
        return tuple(dict.fromkeys(ids))

    def _reasoning_limit(self, body: ChatBody) -> int | None:
        """Return how many tokens the model may reason: the least of what the request and the app allow."""
        given = template_params(body)
        says = given.enable_thinking is not None or given.reasoning_effort is not None
        if (given if says else self._service.template_params).is_thinking_off:
            return 0
        limits = (body.thinking_token_budget, self._service.params.max_reasoning_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    def _parser(self, use: ToolUse, *, is_free: bool, streams: bool) -> ReplyParser:
        reply_format = self._source.reply_format
        if use.forced:
            return ToolCallParser(forced_syntax(use.forced), use.tools, streams=streams)
        if is_free:
            return reply_format.make_parser(use.tools, streams=streams)
        if not use.tools:
            return TextReply()
        return ToolCallParser(
            reply_format.constrained_syntax,
            use.tools,
            streams=streams,
            kept_tokens=reply_format.tool_tokens,
        )

    def _submit(
        self,
        body: Body,
        generations: Generations,
        prompts: list[list[int]],
        params: SamplingParams,
        make_parsers: Sequence[Callable[[], ReplyParser]],
        context: ReplyContext,
        on_end: OnEnd | None = None,
        tools: Mapping[str, Tool] | None = None,
        encode: Callable[[Sequence[Message]], list[int]] = lambda messages: [],
    ) -> None:
        is_chat = isinstance(body, ChatBody)
        is_counted = body.max_new_tokens is not None  # OpenAI's limits are for all tokens together
        marks = self._source.reply_format.reasoning_tokens if is_chat else {}
        stop_ids = self._source.stop_ids(params.stop) | frozenset(body.stop_token_ids or ())
        owner = cache_owner_of(request, self.settings.api_keys, body.prompt_cache_key or body.user)
        origin = Origin.from_request(request)
        hooks, reports = self._service.hooks, self._service.state.reports
        context_len, timeout_sec = self._engine.config.context_len, self.settings.request_timeout_sec

        def report(hooked: HookedReply, generation: GenerationRequest, outcome: Outcome) -> None:
            reports.ended(origin, generation, outcome, reply=hooked.texts()[0])

        def end(hooked: HookedReply, generation: GenerationRequest, outcome: Outcome) -> Outcome:
            outcome = hooked.end(generation, outcome) if hooks else outcome
            if on_end is not None:
                on_end(generation, outcome)
            return outcome

        def choice(index: int, prompt_ids: list[int], make_parser: Callable[[], ReplyParser]) -> Choice:
            hooked = HookedReply(hooks, context.copy(), make_parser, tools)

            def generate(prompt_ids: list[int], params: SamplingParams) -> GenerationRequest:
                parser = hooked.parser
                return GenerationRequest(
                    prompt_ids,
                    for_choice(params, index),
                    stop_ids=stop_ids,
                    ignores_eos=bool(body.ignore_eos),
                    shows_special_tokens=parser.reads_special_tokens or body.skip_special_tokens is False,
                    follows_text=not is_chat,
                    returns_token_ids=isinstance(body, CompletionBody) and bool(body.return_token_ids),
                    kept_tokens={**marks, **parser.kept_tokens},
                    reasoning=(
                        reasoning_of(self._source, prompt_ids, params, is_counted=is_counted)
                        if is_chat
                        else None
                    ),
                    before_done=partial(end, hooked) if hooks or on_end else None,
                    after_done=partial(report, hooked),
                    is_slow_to_end=bool(hooks),
                    cache_owner=owner,
                    owner_kind="key",
                    num_shared=self._shared_prefix.length(prompt_ids) if is_chat else 0,
                    headers=origin.onward_headers,
                    timeout_sec=timeout_sec,
                    changed=generations.changed,
                )

            def follow(messages: Sequence[Message]) -> GenerationRequest:
                ids = encode(messages)
                return generate(ids, bounded(context.params, body, [ids], context_len))

            hooked.start(generate(prompt_ids, params), follow)
            has_single_call = isinstance(body, ChatBody) and body.parallel_tool_calls is False
            return Choice(hooked, has_single_call=has_single_call)

        indices = range(len(prompts))
        generations.submit([choice(*given) for given in zip(indices, prompts, make_parsers, strict=True)])

    # -- out of it -----------------------------------------------------------------------------------

    def _about_answer(self, body: Body) -> tuple[str, str, ModelSource, bool]:
        return (
            self._models.resolve(body.model),
            self._fingerprint,
            self._source,
            body.num_logprobs is not None,
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
