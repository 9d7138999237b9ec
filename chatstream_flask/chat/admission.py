"""Admission of a chat request: everything it needs is taken, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flask import Flask, Request

from ..config import ContextPolicy, OnBusy, SamplingParams
from ..conversation.turn import Turn
from ..engine.engine import Engine
from ..engine.places import Reservation
from ..engine.request import GenerationRequest
from ..errors import BadRequest, ConfigError
from ..hooks.hooked_reply import HookedReply
from ..hooks.hooked_source import source_of
from ..hooks.registry import Hooks
from ..hooks.reply_context import Message, ReplyContext
from ..http.disconnect import make_probe
from ..http.server_check import ServerCheck
from ..model_source import ModelSource
from ..model_source.reasoning import fit_prompt, reasoning_of
from ..monitoring.origin import Origin
from ..prompts import AbstractChatPrompt, ChatPrompt
from ..prompts.export import to_messages
from ..prompts.replacer import Replacer
from ..prompts.template_params import TemplateParams
from ..reply_format.reply_parser import TextReply
from ..reply_format.tools.tool_words import tool_words
from .app_state import AppState
from .chat_request import ChatRequest
from .completion import Callback, Completion
from .conversation_access import ConversationAccess
from .reply_registry import Reply
from .shared_prefix import SharedPrefix


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Puts the reply to a checked chat request into the queue.

    Whatever was taken for a request is given back if a later step refuses it.
    """

    engine: Engine
    hooks: Hooks
    source: ModelSource
    conversations: ConversationAccess
    shared_prefix: SharedPrefix
    params: SamplingParams  # defaults for what neither the conversation nor the request sets
    template_params: TemplateParams  # the same
    context_policy: ContextPolicy
    on_busy: OnBusy
    check_server: ServerCheck

    def accept(
        self, app: Flask, state: AppState, request: Request, body: ChatRequest, callback: Callback | None
    ) -> Reply:
        """Reserve a place, lease the conversation, render the prompt and submit it; return the queued reply.

        The session changes last, so that a refused request leaves none behind.

        :raises ChatStreamError: the request is refused, and nothing is held for it any more
        """
        self.check_server(request.environ)
        self.engine.start(again=False)
        with ExitStack() as undo:
            visitor = self.conversations.visitor_of(request)
            priority = self.conversations.priority_of(request)
            place = self.engine.reserve(visitor, priority, state.settings.visitor_limits)
            undo.push(partial(_give_back, place))
            conversation_id = self.conversations.id_of(request)
            turn = self._begin_turn(request, conversation_id, body, state)
            context = ReplyContext(
                request,
                _messages(turn.prompt) if self.hooks else (),
                self.params,
                visitor=visitor,
                conversation_id=conversation_id,
            )
            hooked = self._hooked(context)
            on_close = partial(state.replies.end, conversation_id, turn.message_id)
            completion = Completion(
                app,
                request,
                turn,
                hooked,
                on_close,
                callback,
                state.reports,
                conversation_id,
                state.settings.store_retry_sec,
            )
            undo.callback(completion.close)
            context.params = self._params(body, turn)
            self.hooks.begin(context)
            params = context.params
            prompt = self._with_tools(turn.prompt.with_text_before_newest(context.added_text))
            headers = Origin.from_request(request).onward_headers

            def generate(messages: Sequence[Message] = ()) -> GenerationRequest:
                asked = prompt.with_messages(messages) if isinstance(prompt, ChatPrompt) else prompt
                fitted = fit_prompt(self.source, asked, params, self.context_policy)
                completion.num_dropped_turns = fitted.num_dropped_turns
                return GenerationRequest(
                    fitted.token_ids,
                    params,
                    stop_ids=self.source.stop_ids(params.stop),
                    text_filter=_text_filter(turn.prompt),
                    reasoning=reasoning_of(self.source, fitted.token_ids, params),
                    shows_special_tokens=hooked.parser.reads_special_tokens,
                    kept_tokens={**self.source.reply_format.reasoning_tokens, **hooked.parser.kept_tokens},
                    before_done=completion.keep,
                    after_done=completion.tell,
                    is_slow_to_end=bool(self.hooks),
                    cache_owner=conversation_id,
                    num_shared=self.shared_prefix.length(fitted.token_ids),
                    headers=headers,
                    timeout_sec=state.settings.request_timeout_sec,
                )

            generation = generate()
            hooked.start(generation, generate)
            reply = Reply(
                conversation_id=conversation_id,
                message_id=turn.message_id,
                user_input=turn.prompt.get_requester_last_msg() or "",
                num_kept=turn.num_kept,
                num_dropped_turns=completion.num_dropped_turns,
                sources=context.sources,
                source=source_of(self.engine, hooked),
            )
            state.replies.add(reply)
            self.engine.submit(generation, place)
            undo.pop_all()
            undo.callback(self.engine.cancel, generation)
            state.replies.publish(reply)
            self.conversations.keep_id(request)
            undo.pop_all()
        state.sweeper.sweep_if_due()
        return reply

    def stop_reply(self, state: AppState, conversation_id: str) -> None:
        """Cancel the running reply of a conversation, if it has one."""
        if reply := state.replies.running(conversation_id):
            reply.source.cancel()

    def _hooked(self, context: ReplyContext) -> HookedReply:
        tools = self.hooks.tools
        reply_format, shown = self.source.reply_format, [tool.definition for tool in tools.values()]
        make_parser = partial(reply_format.make_parser, shown) if tools else TextReply
        return HookedReply(self.hooks, context, make_parser, tools)

    def _with_tools(self, prompt: AbstractChatPrompt) -> AbstractChatPrompt:
        """Return the prompt with the tools of the app, if there are any."""
        shown = [tool.definition for tool in self.hooks.tools.values()]
        if not shown or not isinstance(prompt, ChatPrompt):
            return prompt
        return prompt.with_tools(shown, "" if self.source.reply_format.knows_tools else tool_words(shown))

    def _begin_turn(self, request: Request, conversation_id: str, body: ChatRequest, state: AppState) -> Turn:
        lease = self.conversations.hold(
            conversation_id,
            self.on_busy,
            stop_running=lambda: self.stop_reply(state, conversation_id),
            is_gone=make_probe(request.environ) or (lambda: False),
            timeout_sec=state.settings.request_timeout_sec,
        )
        try:
            conversation = self.conversations.load_held(conversation_id, lease)
            turn = Turn(
                conversation,
                lease,
                state.settings.max_turns,
                state.settings.max_conversation_bytes,
                self.conversations.list_keeper(request, conversation_id),
            )
            if body.regenerate:
                turn.regenerate()
            elif body.edited_message_id is not None:
                turn.edit(body.edited_message_id, body.user_input)
            else:
                turn.ask(body.user_input)
        except BaseException:
            lease.close()
            raise
        return turn

    def _params(self, body: ChatRequest, turn: Turn) -> SamplingParams:
        """Merge the settings, and add the stop strings of the prompt format."""
        kept = turn.conversation.generation_params
        template_params = body.template_params(self.template_params, kept)
        turn.prompt.template_kwargs = template_params.to_kwargs()
        params = body.params(self.params, kept)
        if template_params.is_thinking_off:
            params = replace(params, max_reasoning_tokens=0)
        stop = tuple(dict.fromkeys((*params.stop, *turn.prompt.get_final_stop_strs())))
        try:
            return replace(params, stop=stop)
        except ConfigError as error:
            raise BadRequest(f"with the stop strings of the chat prompt: {error}") from error


def _messages(prompt: AbstractChatPrompt) -> list[dict[str, Any]]:
    """Return the messages before the reply that is still to come."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    texts = [{name: message[name] for name in ("role", "content")} for message in to_messages(prompt)]
    return [*system, *texts[:-1]]


def _give_back(place: Reservation, kind: object, error: BaseException | None, trace: object) -> None:
    """Give a place back; the tokens of a prompt that was refused count for its visitor."""
    place.close(error.num_tokens if isinstance(error, BadRequest) else 0)


def _text_filter(prompt: AbstractChatPrompt) -> Replacer | None:
    rules = prompt.get_replacement_when_output()
    return Replacer(rules) if rules else None
