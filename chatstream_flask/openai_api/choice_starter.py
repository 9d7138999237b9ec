"""The choices of one request: what the engine is asked for, and what happens when a choice ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from flask import request

from ..chat.service import ChatService
from ..config import SamplingParams
from ..engine.outcome import Outcome
from ..engine.request import GenerationRequest
from ..hooks import ReplyContext
from ..hooks.hooked_reply import HookedReply
from ..hooks.reply_context import Message
from ..hooks.tools import Tool
from ..model_source.reasoning import reasoning_of
from ..monitoring.origin import Origin
from ..reply_format.reply_parser import ReplyParser
from .generations import Choice, Generations, OnEnd
from .keys import cache_owner_of
from .sampling import bounded, for_choice
from .schema import Body, ChatBody, CompletionBody
from .shared_prefix import ApiSharedPrefix


class ChoiceStarter:
    """Starts the choices of one request, which share its fields, its caller and the app's hooks."""

    def __init__(
        self,
        service: ChatService,
        shared_prefix: ApiSharedPrefix,
        body: Body,
        context: ReplyContext,
        generations: Generations,
        *,
        on_end: OnEnd | None = None,
        tools: Mapping[str, Tool] | None = None,
        encode: Callable[[Sequence[Message]], list[int]] = lambda messages: [],
    ) -> None:
        """Read what all choices share from the request that is being handled.

        :param context: for which the hooks have begun; each choice gets a copy
        :param generations: notified when a choice has news
        :param on_end: called with each choice that has ended, before its readers see that
        :param tools: the app's tools that the model may call
        :param encode: returns the prompt with the messages of such calls at its end
        """
        settings = service.state.settings
        self._source = service.source
        self._hooks = service.hooks
        self._reports = service.state.reports
        self._context_len = service.engine.config.context_len
        self._timeout_sec = settings.request_timeout_sec
        self._shared_prefix = shared_prefix
        self._body = body
        self._context = context
        self._changed = generations.changed
        self._on_end = on_end
        self._tools = tools
        self._encode = encode
        self._is_chat = isinstance(body, ChatBody)
        self._marks = self._source.reply_format.reasoning_tokens if self._is_chat else {}
        self._stop_ids = self._source.stop_ids(context.params.stop) | frozenset(body.stop_token_ids or ())
        self._owner = cache_owner_of(request, settings.api_keys, body.prompt_cache_key or body.user)
        self._origin = Origin.from_request(request)

    def start(
        self,
        index: int,
        prompt_ids: list[int],
        params: SamplingParams,
        make_parser: Callable[[], ReplyParser],
    ) -> Choice:
        """Return a choice with its first generation, to be submitted."""
        hooked = HookedReply(self._hooks, self._context.copy(), make_parser, self._tools)

        def follow(messages: Sequence[Message]) -> GenerationRequest:
            ids = self._encode(messages)
            following = bounded(self._context.params, self._body, [ids], self._context_len)
            return self._generation(hooked, ids, for_choice(following, index))

        hooked.start(self._generation(hooked, prompt_ids, for_choice(params, index)), follow)
        body = self._body
        has_single_call = isinstance(body, ChatBody) and body.parallel_tool_calls is False
        echoes = isinstance(body, CompletionBody) and body.echoes_logprobs
        return Choice(
            hooked, has_single_call=has_single_call, num_echoed=body.num_logprobs if echoes else None
        )

    def _generation(
        self, hooked: HookedReply, prompt_ids: list[int], params: SamplingParams
    ) -> GenerationRequest:
        body, parser, is_chat = self._body, hooked.parser, self._is_chat
        is_counted = body.max_new_tokens is not None  # OpenAI's limits are for all tokens together
        return GenerationRequest(
            prompt_ids,
            params,
            stop_ids=self._stop_ids,
            ignores_eos=bool(body.ignore_eos),
            shows_special_tokens=parser.reads_special_tokens or body.skip_special_tokens is False,
            follows_text=not is_chat,
            is_prompt_only=body.max_new_tokens == 0,
            returns_token_ids=isinstance(body, CompletionBody) and bool(body.return_token_ids),
            kept_tokens={**self._marks, **parser.kept_tokens},
            reasoning=(
                reasoning_of(self._source, prompt_ids, params, is_counted=is_counted) if is_chat else None
            ),
            before_done=partial(self._end, hooked) if self._hooks or self._on_end else None,
            after_done=partial(self._report, hooked),
            is_slow_to_end=bool(self._hooks),
            cache_owner=self._owner,
            owner_kind="key",
            num_shared=self._shared_prefix.length(prompt_ids) if is_chat else 0,
            headers=self._origin.onward_headers,
            timeout_sec=self._timeout_sec,
            changed=self._changed,
        )

    def _end(self, hooked: HookedReply, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        outcome = hooked.end(generation, outcome) if self._hooks else outcome
        if self._on_end is not None:
            self._on_end(generation, outcome)
        return outcome

    def _report(self, hooked: HookedReply, generation: GenerationRequest, outcome: Outcome) -> None:
        self._reports.ended(self._origin, generation, outcome, reply=hooked.texts()[0])
