"""The sweeper: expired entries go by themselves, one sweep at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from fakes import TIMEOUT, FakeClock
from flask_fakes import ScriptedRunner, read_events, read_until, running_chat, say, talk

from chatstream_flask.conversation.json_file_cache import JSONFileCache
from chatstream_flask.conversation.sweeper import Sweeper
from chatstream_flask.errors import StoreUnavailable
from chatstream_flask.serving.sweeps import Sweeps


def test_it_sweeps_once_per_interval() -> None:
    clock = FakeClock()
    sweeper = Sweeper(lambda: 0, 600, clock)
    for seconds, is_due in [(0, False), (599, False), (1, True), (0, False), (599, False), (5000, True)]:
        clock.advance(seconds)
        thread = sweeper.sweep_if_due()
        assert (thread is not None) == is_due
        if thread is not None:
            thread.join(TIMEOUT)


def test_a_slow_sweep_is_not_joined_by_another() -> None:
    clock, is_inside, may_end = FakeClock(), threading.Event(), threading.Event()
    num_sweeps = 0

    def purge() -> int:
        nonlocal num_sweeps
        num_sweeps += 1
        is_inside.set()
        return int(may_end.wait(TIMEOUT))

    sweeper = Sweeper(purge, 1, clock)
    clock.advance(1)
    thread = sweeper.sweep_if_due()
    assert thread is not None and is_inside.wait(TIMEOUT)
    sweeper.sweep()
    may_end.set()
    thread.join(TIMEOUT)
    assert num_sweeps == 1
    sweeper.sweep()
    assert num_sweeps == 2


def test_a_store_that_fails_is_swept_again(caplog: pytest.LogCaptureFixture) -> None:
    is_down = True

    def purge() -> int:
        if is_down:
            raise StoreUnavailable("the store is down")
        return 3

    sweeper = Sweeper(purge, 1)
    with caplog.at_level(logging.INFO, "chatstream_flask"):
        sweeper.sweep()
        is_down = False
        sweeper.sweep()
    assert [record.getMessage() for record in caplog.records] == [
        "expired conversations could not be removed and are tried again later: the store is down",
        "3 expired or exceeding sessions and conversations were removed",
    ]


def test_a_server_sweeps_at_its_start_and_then_without_any_request() -> None:
    started, again = threading.Event(), threading.Event()

    def purge() -> int:
        (again if started.is_set() else started).set()
        return 0

    sweeper = Sweeper(purge, 0.01)
    sweeps = Sweeps([sweeper, sweeper])
    sweeps.start()
    try:
        assert started.wait(TIMEOUT) and again.wait(TIMEOUT)
    finally:
        sweeps.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("chatstream-sweep"):
            thread.join(TIMEOUT)


@pytest.mark.parametrize("store", [None, "memory://"])
def test_an_accepted_message_lets_the_sessions_and_conversations_of_others_expire(
    tmp_path: Path, store: str | None
) -> None:
    with running_chat(tmp_path, config={"CHATSTREAM_STORE": store}) as chat:
        talk(chat.client(), "one")
        cache = JSONFileCache(tmp_path)
        for n in range(3):
            cache.set(f"session:{n}", {"chatstream_conversation": "gone"}, timeout=-10)
        num_files = len(list(tmp_path.glob("?" * 64)))
        sweeper = chat.state.sweeper
        sweeper._next_at = 0
        talk(chat.client(), "two")
        for thread in threading.enumerate():
            if thread.name == "chatstream-sweep":
                thread.join(TIMEOUT)
        num_kept = 1 if store else 3  # a session, a conversation and a list
        assert len(list(tmp_path.glob("?" * 64))) == num_files - 3 + num_kept


def test_a_thousand_first_messages_of_a_stranger_leave_what_is_allowed(tmp_path: Path) -> None:
    """The newest stay, and what has a running reply, though it was used least recently."""
    config = {"CHATSTREAM_STORE_MAX_CONVERSATIONS": 5, "PERMANENT_SESSION_LIFETIME": 10**6}
    with running_chat(tmp_path, ScriptedRunner(), config, num_of_concurrent_executions=2) as chat:
        known = chat.client()
        talk(known, "known")
        make_older(tmp_path)
        for n in range(20):
            talk(chat.client(), f"stranger {n}")
        chat.runner.is_held = True
        events = read_events(say(known, "again"))
        read_until(events, "start")
        chat.state.sweeper.sweep()
        assert len(list(tmp_path.glob("?" * 64))) <= 15  # each with a session and a list
        chat.runner.release()
        read_until(events, "done")
        assert chat.history(known) == ["known", "ok", "again", "ok"]


def make_older(folder: Path) -> None:
    for file in folder.glob("?" * 64):
        content = file.read_bytes()
        expires_at = int.from_bytes(content[:4], "little") - 100
        older = folder / "older"  # replaced as a whole: the thread of the callbacks may read the session now
        older.write_bytes(expires_at.to_bytes(4, "little") + content[4:])
        older.replace(file)
