"""The caller's list of conversations; each user who is logged in and each anonymous session has one."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Request

from ..conversation import Conversation
from ..conversation.conversation_index import ConversationInfo
from ..conversation.retention import trim_to_limits
from ..errors import InvalidRecord, NotFound, StoreUnavailable
from ..prompts import AbstractChatPrompt
from ..settings import Settings
from .conversation_access import NO_SUCH_CONVERSATION, ConversationAccess


@dataclass(frozen=True)
class ImportedMessage:
    """A message of a conversation that is imported."""

    is_user: bool
    text: str
    reasoning: str | None = None
    is_interrupted: bool = False


class OwnConversations:
    """Operations on the conversations of the owner that the request handler names, and of nobody else.

    :param settings: returns those of the current app
    :param stop_reply: cancels the running reply of a conversation
    """

    def __init__(
        self,
        access: ConversationAccess,
        chat_prompt_clazz: type[AbstractChatPrompt],
        settings: Callable[[], Settings],
        stop_reply: Callable[[str], None],
    ) -> None:
        self._access = access
        self._chat_prompt_clazz = chat_prompt_clazz
        self._settings = settings
        self._stop_reply = stop_reply

    def listed_id(self, request: Request) -> str | None:
        """Return the id of the conversation that a request means; None if it is in no readable list."""
        owner = self._access.owner_of(request)
        if owner is None:
            return None
        try:
            info = self._access.index().get(owner, self._access.id_of(request))
        except InvalidRecord:  # the conversation itself may be sound
            return None
        return None if info is None else self._shown(info).id

    def list(
        self, request: Request, search: str = "", limit: int = 100, offset: int = 0
    ) -> Sequence[ConversationInfo]:
        """Return the caller's conversations, or those with all words of a search."""
        owner, index = self._owner(request), self._access.index()
        if search:
            found = index.search(owner, search, offset + limit)[offset:]
        else:
            found = index.entries(owner, limit, offset)
        return [self._shown(info) for info in found]

    def create(
        self, request: Request, title: str, messages: Sequence[ImportedMessage] = ()
    ) -> ConversationInfo:
        """Begin a conversation, with these messages if there are any.

        :raises TooManyConversations: the caller has as many as are allowed
        """
        owner, index = self._owner(request), self._access.index()
        conversation_id = self._access.key_of(secrets.token_urlsafe(24))
        index.add(owner, conversation_id, title, self._settings().max_conversations_per_visitor)
        if messages:
            try:
                prompt = self._store(conversation_id, messages)
            except BaseException:
                self._delete(owner, conversation_id)
                raise
            index.keep_turn(owner, conversation_id, prompt, is_appended=False)
        self._access.keep_id(request)
        return self._get(owner, conversation_id)

    def change(
        self, request: Request, given_id: str, title: str | None, is_pinned: bool | None
    ) -> ConversationInfo:
        """Rename or pin a conversation; what is None stays as it is.

        :raises NotFound: the caller has no such conversation
        """
        owner, conversation_id = self._owner(request), self._access.key_of(given_id)
        info = self._access.index().change(owner, conversation_id, title=title, is_pinned=is_pinned)
        if info is None:
            raise NotFound(NO_SUCH_CONVERSATION)
        return self._shown(info)

    def delete(self, request: Request, given_id: str) -> None:
        """Delete a conversation; its running reply is cancelled and not kept.

        :raises NotFound: the caller has no such conversation
        """
        owner, conversation_id = self._owner(request), self._access.key_of(given_id)
        self._get(owner, conversation_id)
        self._delete(owner, conversation_id)

    def read(self, request: Request, given_id: str) -> tuple[ConversationInfo, AbstractChatPrompt]:
        """Return the entry of a conversation and what was said in it.

        :raises NotFound: the caller has no such conversation
        """
        conversation_id = self._access.key_of(given_id)
        info = self._get(self._owner(request), conversation_id)
        return info, self._access.load(conversation_id).prompt

    def _owner(self, request: Request) -> str:
        owner = self._access.owner_of(request)
        if owner is None:
            raise NotFound("this site keeps no list of your conversations")
        return owner

    def _get(self, owner: str, conversation_id: str) -> ConversationInfo:
        info = self._access.index().get(owner, conversation_id)
        if info is None:
            raise NotFound(NO_SUCH_CONVERSATION)
        return self._shown(info)

    def _shown(self, info: ConversationInfo) -> ConversationInfo:
        return self._access.shown(info)

    def _delete(self, owner: str, conversation_id: str) -> None:
        self._access.delete(owner, conversation_id)
        self._stop_reply(conversation_id)

    def _store(self, conversation_id: str, messages: Sequence[ImportedMessage]) -> AbstractChatPrompt:
        conversation = Conversation.begin(self._chat_prompt_clazz)
        prompt = conversation.prompt
        for message in messages:
            if message.is_user:
                prompt.add_requester_msg(message.text)
                continue
            prompt.add_responder_msg(message.text)
            prompt.set_responder_last_msg(
                message.text, is_interrupted=message.is_interrupted, reasoning=message.reasoning
            )
            prompt.set_responder_last_msg_id(uuid.uuid4().hex)
        settings = self._settings()
        kept = trim_to_limits(prompt, settings.max_turns, settings.max_conversation_bytes)
        lease = self._access.hold_now(conversation_id)
        try:
            if not lease.save(Conversation(kept).to_record()):
                raise StoreUnavailable("the imported conversation could not be stored")
        finally:
            lease.close()
        return kept
