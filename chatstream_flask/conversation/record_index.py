"""List of conversations for stores that keep one record under each id: one record for each owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Protocol, runtime_checkable

from ..errors import ConversationBusy, InvalidRecord
from ..prompts import AbstractChatPrompt
from .conversation import Conversation
from .conversation_index import (
    ConversationIndex,
    ConversationInfo,
    TextsOf,
    check_number_of,
    title_of,
    turn_texts,
)
from .search_terms import has_terms, search_terms, terms_of
from .store import ConversationStore, load_held

ID_PREFIX = "chatstream-list:"  # before an owner: the id of the record that has the list
FORMAT = 1
BUSY_WAIT_SEC, BUSY_POLL_SEC = 5.0, 0.01
BUSY = "your list of conversations is being changed by somebody else: try again"

Entries = dict[str, dict[str, Any]]  # by conversation id


@runtime_checkable
class IndexedStore(Protocol):
    """Store with a list of its own, beside the conversations."""

    index: ConversationIndex


def index_of(store: ConversationStore, chat_prompt_clazz: type[AbstractChatPrompt]) -> ConversationIndex:
    """Return the list of the conversations in a store.

    :param chat_prompt_clazz: reads their records
    """
    if isinstance(store, IndexedStore):
        return store.index

    def texts_of(conversation_id: str) -> list[str]:
        record = store.load(conversation_id)
        return turn_texts(Conversation.from_record(record, chat_prompt_clazz).prompt)

    return RecordIndex(store, texts_of, getattr(store, "ttl_sec", None))


class RecordIndex:
    """Lists in any ConversationStore.

    A change rewrites the owner's list, and a search reads all the owner's conversations.

    :param texts_of: returns the texts of the turns of a conversation
    :param ttl_sec: seconds after its last turn for which the store keeps a conversation; None: for good
    :param clock: returns seconds since 1970; for tests
    """

    def __init__(
        self,
        store: ConversationStore,
        texts_of: TextsOf,
        ttl_sec: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._texts_of = texts_of
        self._ttl_sec = ttl_sec
        self._clock = clock

    def entries(self, owner: str, limit: int = 100, offset: int = 0) -> list[ConversationInfo]:
        infos = sorted(self._infos(owner), key=lambda info: (info.is_pinned, info.updated_at), reverse=True)
        return infos[offset : offset + limit]

    def search(self, owner: str, words: str, limit: int = 100) -> list[ConversationInfo]:
        wanted = search_terms(words)
        found: list[ConversationInfo] = []
        for info in sorted(self._infos(owner), key=lambda info: info.updated_at, reverse=True):
            if len(found) == limit or not wanted:
                break
            if has_terms(terms_of(info.title), wanted) or any(
                has_terms(terms_of(text), wanted) for text in self._texts_of(info.id)
            ):
                found.append(info)
        return found

    def get(self, owner: str, conversation_id: str) -> ConversationInfo | None:
        entry = self._stored(owner).get(conversation_id)
        return None if entry is None else _info(conversation_id, entry)

    def add(self, owner: str, conversation_id: str, title: str, max_conversations: int | None) -> None:
        with self._changing(owner) as entries:
            check_number_of(len(entries), max_conversations)
            entries[conversation_id] = self._new_entry(title)

    def change(
        self, owner: str, conversation_id: str, *, title: str | None = None, is_pinned: bool | None = None
    ) -> ConversationInfo | None:
        if self.get(owner, conversation_id) is None:
            return None
        with self._changing(owner) as entries:
            entry = entries.get(conversation_id)
            if entry is None:
                return None
            given = {"title": title, "is_pinned": is_pinned}
            entry.update({name: value for name, value in given.items() if value is not None})
            return _info(conversation_id, entry)

    def remove(self, owner: str, conversation_id: str) -> None:
        if self.get(owner, conversation_id) is not None:
            with self._changing(owner) as entries:
                entries.pop(conversation_id, None)

    def keep_turn(
        self, owner: str, conversation_id: str, prompt: AbstractChatPrompt, *, is_appended: bool
    ) -> None:
        with self._changing(owner) as entries:
            if conversation_id not in entries and self._store.load(conversation_id) is None:
                return  # it was deleted after the turn was stored
            entry = entries.setdefault(conversation_id, self._new_entry(""))
            entry["updated_at"] = self._clock()
            entry["title"] = entry["title"] or title_of(prompt)

    def _new_entry(self, title: str) -> dict[str, Any]:
        now = self._clock()
        return {"title": title, "is_pinned": False, "created_at": now, "updated_at": now}

    def _infos(self, owner: str) -> list[ConversationInfo]:
        return [_info(conversation_id, entry) for conversation_id, entry in self._stored(owner).items()]

    def _stored(self, owner: str) -> Entries:
        return self._entries_of(self._store.load(ID_PREFIX + owner))

    def _entries_of(self, record: dict[str, Any] | None) -> Entries:
        if record is None:
            return {}
        if record.get("v") != FORMAT or not isinstance(record.get("conversations"), dict):
            raise InvalidRecord("a stored list of conversations is damaged, or of a newer version")
        entries: Entries = record["conversations"]
        if self._ttl_sec is None:
            return entries
        oldest = self._clock() - self._ttl_sec
        return {key: entry for key, entry in entries.items() if entry["updated_at"] > oldest}

    @contextmanager
    def _changing(self, owner: str) -> Iterator[Entries]:
        """Give the entries to be changed, and save them afterwards."""
        lease = self._hold(ID_PREFIX + owner)
        try:
            entries = self._entries_of(load_held(self._store, ID_PREFIX + owner, lease))
            yield entries
            lease.save({"v": FORMAT, "conversations": entries})
        finally:
            lease.close()

    def _hold(self, record_id: str) -> Any:
        deadline = time.monotonic() + BUSY_WAIT_SEC
        while True:
            try:
                return self._store.hold(record_id)
            except ConversationBusy as error:
                if time.monotonic() >= deadline:
                    raise ConversationBusy(BUSY) from error
            time.sleep(BUSY_POLL_SEC)


def _info(conversation_id: str, entry: dict[str, Any]) -> ConversationInfo:
    created_at, updated_at = (
        datetime.fromtimestamp(entry[name], timezone.utc) for name in ("created_at", "updated_at")
    )
    return ConversationInfo(conversation_id, entry["title"], created_at, updated_at, entry["is_pinned"])
