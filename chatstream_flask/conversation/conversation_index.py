"""List of the conversations of each owner: protocol, entries, and texts that a search finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..errors import TooManyConversations
from ..prompts import AbstractChatPrompt
from ..prompts.chat_history import split_turns

ANONYMOUS = "session:"  # an owner that begins so is a session without a login
MAX_TITLE_LEN = 200  # characters
MAX_SEARCH_LEN = 200  # characters
MAX_LIMIT, MAX_OFFSET = 1000, 1_000_000  # of a part of a list
FIRST_WORDS_LEN = 60  # characters of a title that is taken from the first message

TextsOf = Callable[[str], Iterable[str]]
"""Returns one text for each turn of a stored conversation."""


@dataclass(frozen=True)
class ConversationInfo:
    """Entry of an owner's list of conversations."""

    id: str
    title: str
    created_at: datetime  # UTC
    updated_at: datetime  # UTC; time of the last turn
    is_pinned: bool = False


class ConversationIndex(Protocol):
    """The conversations of each owner, whom the caller has authenticated.

    All methods raise StoreUnavailable when the back end fails.
    """

    def entries(self, owner: str, limit: int = 100, offset: int = 0) -> Sequence[ConversationInfo]:
        """Return the owner's conversations: pinned ones first, then the most recently used."""

    def search(self, owner: str, words: str, limit: int = 100) -> Sequence[ConversationInfo]:
        """Return conversations that have all words in their title, or all in one turn, newest first."""

    def get(self, owner: str, conversation_id: str) -> ConversationInfo | None:
        """Return the entry; None if the owner has no such conversation."""

    def add(self, owner: str, conversation_id: str, title: str, max_conversations: int | None) -> None:
        """Add a conversation that has no turn yet.

        :raises TooManyConversations: the owner has `max_conversations` of them already
        """

    def change(
        self, owner: str, conversation_id: str, *, title: str | None = None, is_pinned: bool | None = None
    ) -> ConversationInfo | None:
        """Change what is given, and return the entry; None if the owner has no such conversation."""

    def remove(self, owner: str, conversation_id: str) -> None:
        """Remove the entry, if there is one."""

    def keep_turn(
        self, owner: str, conversation_id: str, prompt: AbstractChatPrompt, *, is_appended: bool
    ) -> None:
        """Make the entry up to date with a conversation whose newest turn was just stored.

        A conversation that is not in the list is added, with its first words as title. Do nothing if it
        was deleted meanwhile, or belongs to another owner.

        :param is_appended: False if earlier turns were changed or removed, too
        """


def first_words(text: str) -> str:
    """Return the beginning of a text as a title: one line, cut between two words if it has spaces."""
    line = " ".join(text[: 20 * FIRST_WORDS_LEN].split())
    if len(line) <= FIRST_WORDS_LEN:
        return line
    cut = line[:FIRST_WORDS_LEN]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[FIRST_WORDS_LEN // 2 :] else cut}…"


def title_of(prompt: AbstractChatPrompt) -> str:
    """Return the title that a conversation has by its first message; "" if that has no words."""
    contents = prompt.get_contents()[prompt.num_initial :]
    return next((first_words(content.message or "") for content in contents if content.is_requester), "")


def turn_texts(prompt: AbstractChatPrompt, num_newest: int | None = None) -> list[str]:
    """Return question and answer of each of the newest turns, oldest first; None: of all turns."""
    turns = split_turns(prompt.get_contents()[prompt.num_initial :])
    newest = turns if num_newest is None else turns[-num_newest:]
    return ["\n".join(content.message or "" for content in turn) for turn in newest]


def check_number_of(existing: int, max_conversations: int | None) -> None:
    """Raise TooManyConversations if another conversation would exceed the limit."""
    if max_conversations is not None and existing >= max_conversations:
        raise TooManyConversations(
            f"you have {existing} conversations, and {max_conversations} are allowed: delete some first"
        )
