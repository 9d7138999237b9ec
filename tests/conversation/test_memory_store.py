"""The limits of MemoryStore."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeClock

from chatstream_flask.conversation.memory_store import MemoryStore
from chatstream_flask.errors import ConfigError, StoreUnavailable


def say(store: MemoryStore, conversation_id: str, words: str = "") -> None:
    lease = store.hold(conversation_id)
    lease.save({"c": words})
    lease.close()


def kept(store: MemoryStore) -> str:
    return "".join(name for name in "abcdefgh" if name in store._records)


def test_who_has_been_quiet_for_longest_goes_first() -> None:
    store = MemoryStore(max_conversations=3)
    for name in "abc":
        say(store, name)
    say(store, "a")
    store.load("b")
    say(store, "d")
    assert kept(store) == "abd"


def test_bytes_are_those_of_the_text_in_utf8() -> None:
    store = MemoryStore(max_bytes=60)
    for name in "abc":
        say(store, name, "あああ")  # 8 + 9 bytes
    assert repr(store) == "<MemoryStore [3 kept] [51 bytes] <LocalLeases [0 held]>>"
    say(store, "c", "x" * 20)
    assert kept(store) == "bc"
    store.delete("b")
    say(store, "c")
    assert repr(store) == "<MemoryStore [1 kept] [8 bytes] <LocalLeases [0 held]>>"


def test_a_conversation_longer_than_all_memory_is_refused() -> None:
    store = MemoryStore(max_bytes=20)
    say(store, "a", "x")
    with pytest.raises(StoreUnavailable, match=r"of 38 bytes does not fit into .* max_bytes=20"):
        say(store, "b", "x" * 30)
    assert kept(store) == "a"


def test_who_has_a_reply_in_the_making_stays() -> None:
    store = MemoryStore(max_conversations=2)
    say(store, "a")
    lease = store.hold("a")
    for name in "bcd":
        say(store, name)
    assert kept(store) == "ad"
    others = [store.hold(name) for name in "ef"]
    for other in others:
        other.save({})
    assert kept(store) == "aef"
    for held in (lease, *others):
        held.close()
    say(store, "g")
    assert kept(store) == "fg"


def test_what_is_over_goes_before_what_is_quiet() -> None:
    clock = FakeClock()
    store = MemoryStore(max_conversations=2, ttl_sec=10, clock=clock)
    say(store, "a")
    clock.advance(5)
    say(store, "b")
    store.load("a")
    clock.advance(6)
    say(store, "c")
    assert kept(store) == "bc"


@pytest.mark.parametrize("setting", [{"max_conversations": 0}, {"max_bytes": "1"}, {"ttl_sec": 0}])
def test_wrong_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        MemoryStore(**setting)
