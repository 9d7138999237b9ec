"""Requirements of ConversationStore, tested with every store on its real back end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import TIMEOUT
from store_backends import TTL_SEC, Backend, RedisBackend, SQLBackend

from chatstream_flask.conversation import ConversationStore, FileStore
from chatstream_flask.conversation.flask_session_store import KEY_PREFIX
from chatstream_flask.conversation.store import LoadingLease
from chatstream_flask.errors import ConversationBusy, StoreUnavailable

DATA: dict[str, Any] = {
    "v": 1,
    "contents": [{"role": "requester", "message": "日本 \U0001f600 \"'\\ \n \x00 \x7f %s :a", "id": None}],
    "flags": [True, False, 0, -1, 2**53, 0.5],
    "empty": {},
}
SHARED = ("redis", "sqlite", "postgresql")  # between processes


def keep(store: ConversationStore, conversation_id: str, record: dict[str, Any]) -> None:
    """Save a record as a turn does, after it has read what is there."""
    lease = store.hold(conversation_id)
    if isinstance(lease, LoadingLease):
        lease.load()
    lease.save(record)
    lease.close()


def is_busy(store: ConversationStore, conversation_id: str) -> bool:
    try:
        store.hold(conversation_id).close()
    except ConversationBusy:
        return True
    return False


def wait_until(is_true: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    pause = threading.Event()
    end = time.monotonic() + timeout
    while not is_true():
        assert time.monotonic() < end
        pause.wait(0.02)


# -- one process -------------------------------------------------------------------------------------


def test_what_was_saved_last_is_loaded(backend: Backend) -> None:
    store = backend.new_store()
    assert store.load("a") is None
    keep(store, "a", DATA)
    keep(store, "b", {"v": 2})
    assert store.load("a") == DATA
    keep(store, "a", {"v": 3})
    assert (store.load("a"), store.load("b")) == ({"v": 3}, {"v": 2})
    store.delete("a")
    store.delete("a")
    assert (store.load("a"), store.load("b")) == (None, {"v": 2})


def test_what_was_loaded_is_a_copy(backend: Backend) -> None:
    store = backend.new_store()
    record = {"contents": ["a"]}
    keep(store, "a", record)
    record["contents"].append("b")
    loaded = store.load("a")
    assert loaded == {"contents": ["a"]}
    loaded["contents"].append("c")
    assert store.load("a") == {"contents": ["a"]}


def test_a_long_conversation(backend: Backend) -> None:
    store = backend.new_store()
    long = {"contents": ["長い話" * 100] * 1000}
    keep(store, "a", long)
    assert store.load("a") == long


def test_several_saves_of_one_lease(backend: Backend) -> None:
    store = backend.new_store()
    lease = store.hold("a")
    for n in range(3):
        lease.save({"v": n})
        assert store.load("a") == {"v": n}
    lease.close()


def test_a_second_hold_is_refused_until_the_first_is_closed(backend: Backend) -> None:
    store = backend.new_store()
    lease = store.hold("a")
    assert store.load("a") is None
    with pytest.raises(ConversationBusy, match="already has a running reply"):
        store.hold("a")
    assert not is_busy(store, "b")
    lease.close()
    lease.close()
    assert not is_busy(store, "a")
    assert store.load("a") is None


def test_closing_again_leaves_the_next_lease_alone(backend: Backend) -> None:
    store = backend.new_store()
    old = store.hold("a")
    old.close()
    new = store.hold("a")
    old.close()
    assert is_busy(store, "a")
    new.close()


def test_a_closed_lease_saves_nothing(backend: Backend) -> None:
    store = backend.new_store()
    lease = store.hold("a")
    assert lease.save({"v": 1})
    lease.close()
    assert not lease.save({"v": 2})
    assert store.load("a") == {"v": 1}


def test_delete_ends_the_lease(backend: Backend) -> None:
    """Check that the next turn can start at once, and that the old lease neither saves nor frees anything."""
    store = backend.new_store()
    keep(store, "a", DATA)
    old = store.hold("a")
    store.delete("a")
    old.save(DATA)
    assert store.load("a") is None
    new = store.hold("a")
    old.save(DATA)
    old.close()
    assert is_busy(store, "a")
    new.save({"v": 2})
    new.close()
    assert store.load("a") == {"v": 2}


def test_of_many_threads_one_holds(backend: Backend) -> None:
    store = backend.new_store()
    barrier = threading.Barrier(8, timeout=TIMEOUT)

    def hold(_: int) -> bool:
        barrier.wait()
        try:
            store.hold("a")
        except ConversationBusy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hold, range(8))) == 1
    store.delete("a")


def test_threads_do_not_disturb_each_other(backend: Backend) -> None:
    """Check that a reader always gets one complete version."""
    store = backend.new_store()
    keep(store, "shared", {"n": [0] * 500})
    barrier = threading.Barrier(4, timeout=TIMEOUT)

    def work(i: int) -> None:
        barrier.wait()
        for n in range(10):
            keep(store, f"own{i}", {"n": n})
            assert store.load(f"own{i}") == {"n": n}
            if not i:
                keep(store, "shared", {"n": [n] * 500})
            record = store.load("shared")
            assert record is not None
            assert len(set(record["n"])) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_each_save_renews_the_time_to_live(backend: Backend) -> None:
    store = backend.new_store()
    keep(store, "a", DATA)
    backend.age(90, "a")
    assert store.load("a") == DATA
    keep(store, "a", DATA)
    backend.age(90, "a")
    assert store.load("a") == DATA
    backend.age(20, "a")
    assert store.load("a") is None
    keep(store, "a", {"v": 2})
    assert store.load("a") == {"v": 2}


def test_purge_removes_what_is_over_and_not_held(backend: Backend) -> None:
    store = backend.new_store()
    held = store.hold("held")
    held.save(DATA)
    for name in ("a", "b"):
        keep(store, name, DATA)
    backend.age(40, "held", "a", "b")
    keep(store, "new", DATA)
    backend.age(61, "held", "a", "b")
    assert store.purge() == (2 if backend.purges else 0)
    assert store.purge() == 0
    assert store.load("new") == DATA
    held.save({"v": 2})
    held.close()
    assert [store.load(name) for name in ("held", "a", "b")] == [{"v": 2}, None, None]


def test_what_is_no_json_is_refused_and_leaves_what_was_there(backend: Backend) -> None:
    store = backend.new_store()
    keep(store, "a", DATA)
    lease = store.hold("a")
    with pytest.raises(StoreUnavailable):
        lease.save({"v": object()})
    lease.close()
    assert store.load("a") == DATA


@pytest.mark.parametrize("backend", ["flask-session", *SHARED], indirect=True)
def test_down_and_there_again(backend: Backend) -> None:
    store = backend.new_store()
    keep(store, "a", DATA)
    lease, lost = store.hold("b"), store.hold("c")
    acts: list[Callable[[], object]] = [
        lambda: store.load("a"),
        lambda: store.delete("a"),
        lambda: lease.save(DATA),
    ]
    if backend.keeps_leases:
        acts.append(lambda: store.hold("d"))
    if isinstance(backend, SQLBackend):
        acts.append(store.purge)
    with backend.down():
        for act in acts:
            with pytest.raises(StoreUnavailable, match="cannot be read or written at the moment"):
                act()
        lost.close()
    lease.save({"v": 2})
    lease.close()
    assert (store.load("a"), store.load("b")) == (DATA, {"v": 2})
    keep(store, "d", {"v": 3})
    assert store.load("d") == {"v": 3}


@pytest.mark.parametrize("backend", ["flask-session", *SHARED], indirect=True)
def test_a_conversation_is_free_a_second_after_the_store_is_back(backend: Backend) -> None:
    store = backend.new_store()
    lease = store.hold("a")
    with backend.down():
        lease.close()
    wait_until(lambda: not is_busy(store, "a"), timeout=1.0)


# -- turns that are appended --------------------------------------------------------------------------

APPENDING = ("files", *SHARED)


def chat_of(num_turns: int, settings: int = 0) -> dict[str, Any]:
    contents = [{"message": f"{n} あ" * 20, "id": n} for n in range(2 * num_turns)]
    return {"v": 2, "prompt": {"system": "s", "contents": contents}, "params": {"seed": settings}}


@pytest.mark.parametrize("backend", APPENDING, indirect=True)
def test_a_turn_of_a_long_conversation_costs_its_own_bytes(backend: Backend) -> None:
    """Each turn wrote all that had been said before."""
    store = backend.new_store()
    keep(store, "a", chat_of(5000))
    before = backend.num_bytes_written()
    keep(store, "a", chat_of(5001))
    cost = backend.num_bytes_written() - before
    assert 0 < cost < 100_000  # PostgreSQL may write some pages whole
    assert len(json.dumps(chat_of(5000), ensure_ascii=False).encode()) > 1_500_000
    assert store.load("a") == backend.new_store().load("a") == chat_of(5001)


def exactly(record: dict[str, Any] | None) -> str:
    """Return JSON, in which True is not 1."""
    return json.dumps(record, sort_keys=True)


@pytest.mark.parametrize("backend", ["memory", *APPENDING], indirect=True)
def test_whatever_a_turn_changes_is_what_is_loaded(backend: Backend) -> None:
    store = backend.new_store()
    long = chat_of(50)
    contents = long["prompt"]["contents"]
    versions = [
        chat_of(50, settings=1),
        long | {"prompt": {"system": "s", "contents": [*contents[:4], *contents[20:]]}},  # the oldest go
        long | {"prompt": {"system": "t", "contents": [*contents[:-1], {"message": "again"}]}},
        long | {"prompt": {"contents": []}},
        long | {"params": {"stop": ["\n", "\u2028"]}, "title": "日本"},
        long | {"params": {"stop": "\ud83d"}},  # a lone surrogate
        {"v": True},
        {"v": 1},
        {"v": 1.0},
        {},
    ]
    for version in [*versions, *reversed(versions)]:
        keep(store, "a", version)
        assert exactly(store.load("a")) == exactly(version)
    lease = store.hold("a")
    for version in versions:  # without reading it
        lease.save(version)
        assert exactly(store.load("a")) == exactly(version)
    lease.close()


@pytest.mark.parametrize("backend", APPENDING, indirect=True)
def test_what_was_removed_does_not_pile_up(backend: Backend) -> None:
    store = backend.new_store()
    for n in range(200):
        keep(store, "a", chat_of(10, settings=n) | {"newest": f"{n}" * 1000})
    assert num_bytes_kept(store, "a") < 20_000
    assert store.load("a") == chat_of(10, settings=199) | {"newest": "199" * 1000}


def num_bytes_kept(store: ConversationStore, conversation_id: str) -> int:
    if isinstance(store, FileStore):
        lines = store._cache.read_lines(KEY_PREFIX + conversation_id)
    else:
        lines = store.read_lines(conversation_id)  # type: ignore[attr-defined]
    return sum(len(line) for line in lines)


def test_a_line_whose_answer_was_lost_is_written_again_and_is_there_once(shared: Backend) -> None:
    """The back end wrote it, but its client did not hear that, and tries again."""
    store: Any = shared.new_store()
    lease: Any = store.hold("a")
    for num_turns in (1, 2):
        line = lease._lines._next(chat_of(num_turns))
        assert store.save_if_held("a", lease.token, line)
        assert lease.save(chat_of(num_turns))
        assert store.load("a") == chat_of(num_turns)
    lease.close()


def test_a_conversation_that_expires_during_a_reply_is_stored_whole(backend: Backend) -> None:
    store = backend.new_store()
    keep(store, "a", chat_of(3))
    lease = store.hold("a")
    if isinstance(lease, LoadingLease):
        assert lease.load() == chat_of(3)
    backend.age(TTL_SEC + 1, "a")
    assert lease.save(chat_of(4))
    lease.close()
    assert store.load("a") == chat_of(4)


# -- many processes ----------------------------------------------------------------------------------


def test_a_store_keeps_what_another_one_saved(shared: Backend) -> None:
    keep(shared.new_store(), "a", DATA)
    assert shared.new_store().load("a") == DATA


def test_stores_exclude_each_other(shared: Backend) -> None:
    mine, theirs = shared.new_store(), shared.new_store()
    lease = mine.hold("a")
    assert is_busy(theirs, "a")
    theirs.delete("a")
    lease.save(DATA)
    assert theirs.load("a") is None
    assert not is_busy(theirs, "a")
    lease.close()


def test_a_lease_that_another_took_over_saves_nothing(shared: Backend) -> None:
    mine, theirs = shared.new_store(), shared.new_store()
    old = mine.hold("a")
    shared.end_lease("a")
    new = theirs.hold("a")
    assert new.save({"v": 2})
    assert not old.save({"v": 1})
    old.close()
    assert is_busy(mine, "a")
    new.close()
    assert mine.load("a") == {"v": 2}


def test_a_lease_that_ran_out_still_counts_while_nobody_else_came(shared: Backend) -> None:
    """Check that a process that was suspended for longer than its lease can still save its reply."""
    mine, theirs = shared.new_store(), shared.new_store()
    keep(mine, "a", {"v": 1})
    lease = mine.hold("a")
    shared.end_lease("a")
    lease.save({"v": 2})
    assert theirs.load("a") == {"v": 2}
    theirs.delete("a")
    lease.save({"v": 3})
    assert theirs.load("a") is None
    lease.close()


STORE = """
import os, sys
sys.path.insert(0, sys.argv[1])
kind, url, lease_sec = sys.argv[2:]
if kind == "redis":
    from chatstream_flask.conversation.redis_store import RedisStore as Store
else:
    from chatstream_flask.conversation.sql_store import SQLStore as Store
store = Store(url, ttl_sec=100, lease_sec=float(lease_sec))
"""
HOLD = """
store.hold("a").save({"v": 1})
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
lease = store.hold("parent")
pid = os.fork()
if not pid:
    child = store.hold("child")
    child.save({"v": "child"})
    child.close()
    os._exit(0)
lease.save({"v": "parent"})
assert os.waitpid(pid, 0)[1] == 0
assert store.load("child") == {"v": "child"}
lease.close()
store.close()
"""


def command(shared: Backend, script: str, lease_sec: float) -> list[str]:
    root = str(Path(__file__).parents[2])
    kind = "redis" if isinstance(shared, RedisBackend) else "sql"
    return [sys.executable, "-W", "error", "-c", STORE + script, root, kind, shared.url, str(lease_sec)]


@contextmanager
def holder(shared: Backend, lease_sec: float) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the conversation "a"."""
    with subprocess.Popen(
        command(shared, HOLD, lease_sec), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_process_renews_its_leases_until_it_is_killed(shared: Backend) -> None:
    lease_sec = 1.2
    store = shared.new_store()
    with holder(shared, lease_sec) as process:
        end = time.monotonic() + 1.5 * lease_sec
        while time.monotonic() < end:
            assert is_busy(store, "a")
            threading.Event().wait(0.05)
        process.kill()
        killed_at = time.monotonic()
        wait_until(lambda: not is_busy(store, "a"))
        assert time.monotonic() - killed_at < lease_sec + 1
    assert store.load("a") == {"v": 1}


def test_a_fork_shares_nothing_but_the_back_end(shared: Backend) -> None:
    run = subprocess.run(command(shared, FORK, 5.0), capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (0, "")
    store = shared.new_store()
    assert not is_busy(store, "parent")
    assert not is_busy(store, "child")
    assert store.load("parent") == {"v": "parent"}
