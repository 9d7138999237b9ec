"""Stored responses: each is a record of its own in the store of the app's conversations."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ...chat.instance_name import InstanceName
from ...conversation import ConversationStore, Lease
from ...errors import ConversationBusy
from ..errors import ApiError
from ..message_schema import Message
from .output import IN_PROGRESS, QUEUED, failed

FORMAT = "response-1"
PREFIX = "resp_"


@dataclass(frozen=True)
class StoredResponse:
    """A response, its input, and the messages that the next one continues."""

    response: dict[str, Any]
    input_items: list[dict[str, Any]]
    messages: list[Message]
    num_events: int = 0  # of its stream

    @property
    def has_ended(self) -> bool:
        return self.response["status"] not in (QUEUED, IN_PROGRESS)


class ResponseRecords:
    """Saves, finds and deletes responses; each belongs to the API key that created it."""

    def __init__(self, store: ConversationStore, name: InstanceName) -> None:
        self._store = store
        self._name = name

    def hold(self, response_id: str) -> Lease:
        """Return the exclusive right to store a response; it says of one that runs that its server lives.

        :raises ConversationBusy: somebody else has it
        :raises StoreUnavailable: the back end failed
        """
        return self._store.hold(self._key(response_id))

    def save(self, owner: str | None, stored: StoredResponse, lease: Lease | None = None) -> None:
        """Store a response durably.

        :param lease: that of a response which was stored before; None: it is new
        :raises StoreUnavailable: the back end failed
        """
        held = lease or self.hold(stored.response["id"])
        try:
            held.save(
                {
                    "v": FORMAT,
                    "owner": owner,
                    "response": stored.response,
                    "input": stored.input_items,
                    "messages": msgspec.to_builtins(stored.messages),
                    "num_events": stored.num_events,
                }
            )
        finally:
            if lease is None:
                held.close()

    def end_if_lost(self, owner: str | None, stored: StoredResponse) -> StoredResponse:
        """Return a response; if nobody generates it any more, it has failed.

        :raises StoreUnavailable: the back end failed
        """
        if stored.has_ended:
            return stored
        try:
            lease = self.hold(stored.response["id"])
        except ConversationBusy:  # another server generates it
            return stored
        try:
            now = self.load(stored.response["id"], owner)  # it may have ended since it was read
            if now.has_ended:
                return now
            lost = stored.response | failed("the server that generated the response has ended")
            ended = replace(stored, response=lost)
            self.save(owner, ended, lease)
            return ended
        finally:
            lease.close()

    def load(self, response_id: str, owner: str | None, param: str | None = None) -> StoredResponse:
        """Return a response.

        :param param: the field of the request that names it
        :raises ApiError: there is none, or it belongs to another key
        """
        record = None
        if response_id.startswith(PREFIX) and len(response_id) < 100 and response_id.isascii():
            record = self._store.load(self._key(response_id))
        if record is None or record.get("v") != FORMAT or record["owner"] != owner:
            raise ApiError(
                f"there is no response {response_id[:100]!r}: it was deleted, has expired, was not stored, "
                "or belongs to another API key",
                param=param,
                code="previous_response_not_found" if param else "not_found",
                status=400 if param else 404,
            )
        messages = msgspec.convert(record["messages"], list[Message])
        return StoredResponse(record["response"], record["input"], messages, record.get("num_events", 0))

    def delete(self, response_id: str, owner: str | None) -> None:
        """Delete a response.

        :raises ApiError: there is none, or it belongs to another key
        """
        self.load(response_id, owner)
        self._store.delete(self._key(response_id))

    def _key(self, response_id: str) -> str:
        return self._name.conversation_id(response_id)


def new_response_id() -> str:
    """Return an id that nobody can guess."""
    return PREFIX + secrets.token_hex(24)


def input_items(given: str | Sequence[Any]) -> list[dict[str, Any]]:
    """Return the input as a list of items, each with an id and without fields that are not set."""
    if isinstance(given, str):
        items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": given}]}]
    else:
        items = [_without_nulls(msgspec.to_builtins(item)) for item in given]
    for i, item in enumerate(items):
        item.setdefault("type", "message")
        item.setdefault("id", f"item_{i}_{secrets.token_hex(8)}")
    return items


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
