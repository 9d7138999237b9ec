"""Requirements of ConversationIndex, tested with the list of every store on its real back end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import TIMEOUT
from flask_fakes import PlainPrompt
from store_backends import Backend

from chatstream_flask.conversation import Conversation, ConversationStore
from chatstream_flask.conversation.conversation_index import ConversationIndex, first_words
from chatstream_flask.conversation.record_index import index_of
from chatstream_flask.conversation.search_terms import has_terms, search_terms, terms_of
from chatstream_flask.errors import TooManyConversations


class Chats:
    """Conversations in a store, each of whose turns is stored as a reply's end stores it."""

    def __init__(self, store: ConversationStore) -> None:
        self.store = store
        self.index: ConversationIndex = index_of(store, PlainPrompt)

    def say(self, owner: str, conversation_id: str, *texts: str, keep_turns: int | None = None) -> None:
        """Append turns, or replace those after the first `keep_turns`."""
        lease = self.store.hold(conversation_id)
        conversation = Conversation.from_record(self.store.load(conversation_id), PlainPrompt)
        prompt = conversation.prompt
        if keep_turns is not None:
            del prompt._contents[2 * keep_turns :]
        for text in texts:
            prompt.add_requester_msg(text)
            prompt.add_responder_msg(f"reply {text}")
            assert lease.save(conversation.to_record())
            self.index.keep_turn(owner, conversation_id, prompt, is_appended=keep_turns is None)
        lease.close()

    def titles(self, owner: str) -> list[str]:
        return [info.title for info in self.index.entries(owner)]

    def found(self, owner: str, words: str) -> list[str]:
        return [info.id for info in self.index.search(owner, words)]


@pytest.fixture
def chats(backend: Backend) -> Chats:
    return Chats(backend.new_store())


def test_each_owner_has_a_list_with_the_most_recently_used_first(chats: Chats) -> None:
    chats.say("lucy", "a", "Hello there")
    chats.say("lucy", "b", "Bonjour")
    chats.say("bob", "c", "Good evening")
    assert chats.titles("lucy") == ["Bonjour", "Hello there"]
    chats.say("lucy", "a", "And now?")
    assert chats.titles("lucy") == ["Hello there", "Bonjour"]
    assert chats.titles("bob") == ["Good evening"]
    assert chats.titles("nobody") == []
    assert [info.id for info in chats.index.entries("lucy", limit=1, offset=1)] == ["b"]
    entry = chats.index.get("lucy", "a")
    assert entry is not None and entry.created_at < entry.updated_at


def test_renamed_and_pinned_by_its_owner_only(chats: Chats) -> None:
    chats.say("lucy", "a", "Hello")
    chats.say("lucy", "b", "Bonjour")
    changed = chats.index.change("lucy", "a", title="Greetings 日本", is_pinned=True)
    assert changed is not None and (changed.id, changed.title, changed.is_pinned) == (
        "a",
        "Greetings 日本",
        True,
    )
    assert chats.titles("lucy") == ["Greetings 日本", "Bonjour"]
    assert chats.index.change("bob", "a", title="mine") is None
    assert chats.index.change("lucy", "nothing", title="mine") is None
    chats.say("lucy", "a", "More")
    assert chats.titles("lucy") == ["Greetings 日本", "Bonjour"]
    unpinned = chats.index.change("lucy", "a", is_pinned=False)
    assert unpinned is not None and unpinned.title == "Greetings 日本"


def test_what_is_deleted_is_in_no_list_and_found_no_more(chats: Chats) -> None:
    chats.say("lucy", "a", "secret plans")
    chats.index.remove("bob", "a")
    assert chats.found("lucy", "plans") == ["a"]
    for delete in (chats.index.remove, lambda owner, id_: chats.store.delete(id_)):
        delete("lucy", "a")
    chats.index.remove("lucy", "a")
    assert chats.titles("lucy") == []
    assert chats.found("lucy", "plans") == []
    assert chats.index.get("lucy", "a") is None


def test_a_turn_that_is_stored_while_its_conversation_is_deleted_does_not_bring_it_back(chats: Chats) -> None:
    prompt = PlainPrompt()
    prompt.add_requester_msg("Hello")
    prompt.add_responder_msg("Hi")
    chats.index.keep_turn("lucy", "gone", prompt, is_appended=True)
    assert chats.titles("lucy") == []


def test_a_search_finds_titles_and_texts_of_its_owner(chats: Chats) -> None:
    chats.say("lucy", "a", "Where do whales sleep?", "In the Atlantic, perhaps")
    chats.say("lucy", "b", "日本の首都はどこですか", "東京タワーの高さ")
    chats.say("bob", "c", "Where do whales sing?")
    chats.index.change("lucy", "b", title="Königreich ZZZ")
    for words, ids in {
        "whales": ["a"],
        "WHAL": ["a"],  # the beginning of a word
        "hales": [],
        "sleep whales": ["a"],
        "whales slee": ["a"],
        "whal sleep": [],  # only the last word may be incomplete
        "whales perhaps": [],  # of different turns
        "首都": ["b"],
        "京タワ": ["b"],  # within a run of characters
        "高": ["b"],
        "大阪": [],
        "königreich": ["b"],
        "zzz": ["b"],
        "reply": ["b", "a"],  # replies are searched, too
        "' OR \" * & | ! :* NEAR( %": [],
        "()*\"'": [],
        "": [],
    }.items():
        assert chats.found("lucy", words) == ids, words
    assert chats.found("bob", "whales") == ["c"]


def test_only_todays_turns_and_title_are_found(chats: Chats) -> None:
    """Turns that were edited away, dropped or renamed are not found any more."""
    chats.say("lucy", "a", "alpha", "beta", "gamma")
    chats.say("lucy", "a", "delta", keep_turns=1)
    assert {words: chats.found("lucy", words) for words in ("alpha", "beta", "gamma", "delta")} == {
        "alpha": ["a"],
        "beta": [],
        "gamma": [],
        "delta": ["a"],
    }
    conversation = Conversation.from_record(chats.store.load("a"), PlainPrompt)
    kept = conversation.prompt.without_oldest_turns(1)
    lease = chats.store.hold("a")
    kept.add_requester_msg("epsilon")
    kept.add_responder_msg("ok")
    lease.save(Conversation(kept).to_record())
    chats.index.keep_turn("lucy", "a", kept, is_appended=True)
    lease.close()
    chats.index.change("lucy", "a", title="zeta")
    assert chats.found("lucy", "alpha") == []
    assert (
        chats.found("lucy", "delta") == chats.found("lucy", "epsilon") == chats.found("lucy", "zeta") == ["a"]
    )


def test_a_conversation_from_before_there_were_lists_is_listed_with_its_next_turn(chats: Chats) -> None:
    lease = chats.store.hold("old")
    prompt = PlainPrompt()
    for text in ("first", "second"):
        prompt.add_requester_msg(text)
        prompt.add_responder_msg("ok")
    lease.save(Conversation(prompt).to_record())
    lease.close()
    assert chats.titles("lucy") == []
    chats.say("lucy", "old", "third")
    assert chats.titles("lucy") == ["first"]
    assert [chats.found("lucy", words) for words in ("first", "second", "third")] == [["old"]] * 3


def test_the_number_is_limited(chats: Chats) -> None:
    chats.index.add("lucy", "a", "", 2)
    chats.index.add("lucy", "b", "Second", 2)
    with pytest.raises(TooManyConversations, match="you have 2 conversations, and 2 are allowed"):
        chats.index.add("lucy", "c", "", 2)
    chats.index.add("bob", "d", "", 2)
    assert chats.titles("lucy") == ["Second", ""]
    chats.say("lucy", "a", "Named by its first words")
    assert chats.titles("lucy") == ["Named by its first words", "Second"]


def test_changes_at_the_same_time_are_all_kept(chats: Chats) -> None:
    barrier = threading.Barrier(4, timeout=TIMEOUT)

    def work(i: int) -> None:
        barrier.wait()
        for n in range(3):
            chats.say("lucy", f"{i}-{n}", f"conversation {i} {n}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(chats.titles("lucy")) == 12


@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgresql"], indirect=True)
def test_a_conversation_leaves_the_list_when_it_expires(backend: Backend, chats: Chats) -> None:
    chats.say("lucy", "a", "Hello")
    backend.age(101, "a", "chatstream-list:lucy")
    assert chats.titles("lucy") == chats.found("lucy", "Hello") == []


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n lines ", "two lines"),
        ("word " * 40, "word word word word word word word word word word word word…"),
        ("あ" * 100, "あ" * 60 + "…"),
        ("", ""),
    ],
)
def test_a_title_is_the_first_words(text: str, title: str) -> None:
    assert first_words(text) == title


def test_words_are_compared_without_case_and_width() -> None:
    terms = terms_of("Ｆｕｌｌ Straße snake_case 日本語")
    assert terms == ["full", "strasse", "snake", "case", "日本", "本語", "語"]
    assert has_terms(terms, search_terms("STRASSE ﬁ")) is False
    assert has_terms(terms, search_terms("STRASSE full 本語"))
    assert len(terms_of(" ".join(map(str, range(20_000))))) == 10_000
