"""The caller's conversation: its id, its stored record and its lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Request

from ..config import OnBusy, SamplingParams
from ..conversation import Conversation, Lease
from ..conversation.conversation_index import ConversationIndex, ConversationInfo
from ..conversation.record_index import index_of
from ..conversation.store import load_held
from ..conversation.turn import KeepInList
from ..errors import ConversationBusy, NotFound
from ..prompts import AbstractChatPrompt
from ..prompts.template_params import TemplateParams
from .chat_request import SESSION_FIELDS, merge_kept, merge_kept_template, parse_generation_params
from .instance_name import InstanceName
from .request_handler import AbstractRequestHandler

KNOWN_ID = "chatstream.conversation_id"  # in a request's environ, with the name of the ChatStream
CHOSEN_ID = "conversation_id"  # in the query of a URL: one of the caller's list
NO_SUCH_CONVERSATION = "you have no conversation with this id: it may have been deleted"
BUSY_POLL_SEC = 0.05


class ConversationAccess:
    """Finds conversations through the request handler, in the context of the request."""

    def __init__(
        self,
        name: InstanceName,
        request_handler: AbstractRequestHandler,
        chat_prompt_clazz: type[AbstractChatPrompt],
        params: SamplingParams,
        template_params: TemplateParams,
    ) -> None:
        self._name = name
        self._known_id = f"{KNOWN_ID}.{name}"
        self._request_handler = request_handler
        self._chat_prompt_clazz = chat_prompt_clazz
        self._params = params  # defaults for what a conversation does not set
        self._template_params = template_params

    def id_of(self, request: Request) -> str:
        """Return the id of the conversation that a request means.

        `?conversation_id=` names one of the caller's list; without it, it is the one of the handler.

        The handler is asked once per request, so that a callback finds the same conversation.

        :raises NotFound: the URL names a conversation that is not in the caller's list
        """
        known: str | None = request.environ.get(self._known_id)
        if known is None:
            known = self._chosen_id(request)
            if known is None:
                known = self.key_of(self._request_handler.get_conversation_id(request))
            request.environ[self._known_id] = known
        return known

    def _chosen_id(self, request: Request) -> str | None:
        """Return the id that the URL names; None if there is none, or the handler has no lists."""
        given = request.args.get(CHOSEN_ID)
        owner = None if given is None else self.owner_of(request)
        if given is None or owner is None:
            return None
        conversation_id = self.key_of(given)
        if self.index().get(owner, conversation_id) is None:
            raise NotFound(NO_SUCH_CONVERSATION)
        return conversation_id

    def key_of(self, given_id: str) -> str:
        """Return the key in the store of an id that the handler or a client has given.

        :raises NotFound: it cannot be a conversation of this ChatStream
        """
        is_key = self._request_handler.shares_conversations
        return given_id if is_key else self._name.conversation_id(given_id)

    def shown(self, info: ConversationInfo) -> ConversationInfo:
        """Return an entry of a list with the id that clients know."""
        is_key = self._request_handler.shares_conversations
        return info if is_key else replace(info, id=self._name.given_id(info.id))

    def owner_of(self, request: Request) -> str | None:
        """Return whose list the caller has; None: the handler has no lists."""
        owner = self._request_handler.get_owner(request)
        if owner is None or self._request_handler.shares_conversations:
            return owner
        return self._name.owner(owner)

    def index(self) -> ConversationIndex:
        return index_of(self._request_handler.get_store(), self._chat_prompt_clazz)

    def list_keeper(self, request: Request, conversation_id: str) -> KeepInList | None:
        """Return the function that updates the caller's list after a turn; None: there is no list."""
        owner = self.owner_of(request)
        return None if owner is None else partial(self.index().keep_turn, owner, conversation_id)

    def keep_id(self, request: Request) -> None:
        """Let later requests of the caller find this conversation; for what was accepted only."""
        self._request_handler.keep_conversation_id(request)

    def visitor_of(self, request: Request) -> str | None:
        return self._request_handler.get_visitor(request)

    def priority_of(self, request: Request) -> int:
        return self._request_handler.get_priority(request)

    def load(self, conversation_id: str) -> Conversation:
        record = self._request_handler.get_store().load(conversation_id)
        return Conversation.from_record(record, self._chat_prompt_clazz)

    def load_held(self, conversation_id: str, lease: Lease) -> Conversation:
        """Load a conversation through its lease, which can then save only what has changed."""
        record = load_held(self._request_handler.get_store(), conversation_id, lease)
        return Conversation.from_record(record, self._chat_prompt_clazz)

    def of(self, request: Request) -> Conversation:
        return self.load(self.id_of(request))

    def hold(
        self,
        conversation_id: str,
        on_busy: OnBusy,
        *,
        stop_running: Callable[[], None],
        is_gone: Callable[[], bool],
        timeout_sec: float,
    ) -> Lease:
        """Return the lease of a conversation.

        While another turn holds it, `on_busy` decides: refuse at once, wait until the client is gone or the
        time is over, or stop the running reply.

        :raises ConversationBusy: it did not become free
        """
        store = self._request_handler.get_store()
        deadline = time.monotonic() + timeout_sec
        while True:
            try:
                return store.hold(conversation_id)
            except ConversationBusy:
                if on_busy is OnBusy.REJECT or is_gone() or time.monotonic() >= deadline:
                    raise
            if on_busy is OnBusy.REPLACE:
                stop_running()
            time.sleep(BUSY_POLL_SEC)

    def hold_now(self, conversation_id: str) -> Lease:
        """Return the lease of a conversation; raises ConversationBusy if it is not free."""
        return self._request_handler.get_store().hold(conversation_id)

    def delete(self, owner: str | None, conversation_id: str) -> None:
        """Delete a conversation, and its entry in the list of an owner."""
        if owner is not None:
            self.index().remove(owner, conversation_id)
        self._request_handler.get_store().delete(conversation_id)

    # -- the visitor's own generation settings ---------------------------------------------------------

    def generation_params(self, request: Request) -> dict[str, Any]:
        kept = self.of(request).generation_params
        params = vars(merge_kept(self._params, kept)) | vars(merge_kept_template(self._template_params, kept))
        return {name: params[name] for name in sorted(SESSION_FIELDS)}

    def set_generation_params(self, request: Request, given: dict[str, Any] | None) -> None:
        """Change the settings that are given; None removes all."""
        checked = None if given is None else parse_generation_params(given, self._params)
        conversation_id = self.id_of(request)
        lease = self.hold_now(conversation_id)
        try:
            conversation = self.load_held(conversation_id, lease)
            changed = {} if checked is None else conversation.generation_params | checked
            if changed == conversation.generation_params:
                return
            conversation.generation_params = changed
            lease.save(conversation.to_record())
        finally:
            lease.close()
        self.keep_id(request)
