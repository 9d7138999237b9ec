"""FlaskSessionStore on each back end, and the file-based sessions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cachelib import SimpleCache
from fakes import FakeClock
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from redis_server import connect, run_redis

from chatstream_flask import ChatStream
from chatstream_flask.conversation import ConversationStore, FileStore, FlaskSessionStore
from chatstream_flask.conversation.expiry_clock import ExpiryClock
from chatstream_flask.conversation.flask_session_store import KEY_PREFIX
from chatstream_flask.conversation.json_file_cache import DAMAGED_SUFFIX, MAX_DAMAGED, JSONFileCache
from chatstream_flask.conversation.record_lines import DamagedLines, read_lines
from chatstream_flask.errors import ConfigError, ConversationBusy, StoreUnavailable

DATA: dict[str, Any] = {
    "v": 1,
    "contents": [{"role": "requester", "message": "日本 \U0001f600 \"'\\ \n \x01", "message_id": None}],
    "flags": [True, False, 0, -1, 2**53, 0.5],
    "empty": {},
}


def files_app(directory: Path) -> Flask:
    app = Flask("host", instance_path=str(directory))
    app.config["CHATSTREAM_STORE_DIR"] = str(directory / "store")
    return app


def cachelib_app() -> Flask:
    app = Flask("host")
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
    Session(app)  # type: ignore[no-untyped-call]
    return app


def redis_app(port: int) -> Flask:
    app = Flask("host")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=connect(port))
    Session(app)  # type: ignore[no-untyped-call]
    return app


def sqlalchemy_app(directory: Path) -> Flask:
    app = Flask("host")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{directory}/host.db?timeout=30"
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy(app))
    Session(app)  # type: ignore[no-untyped-call]
    return app


def store_of(app: Flask) -> ConversationStore:
    store = ChatStream(use_mock_response=True, app=app).store(app)
    assert isinstance(store, (FileStore, FlaskSessionStore))
    return store


def keep(store: ConversationStore, conversation_id: str, record: dict[str, Any]) -> None:
    lease = store.hold(conversation_id)
    try:
        lease.save(record)
    finally:
        lease.close()


@pytest.fixture(params=["files", "cachelib", "redis", "sqlalchemy"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    if request.param == "redis":
        app = redis_app(request.getfixturevalue("redis_port"))
        yield app
        app.config["SESSION_REDIS"].close()
    elif request.param == "sqlalchemy":
        app = sqlalchemy_app(tmp_path)
        yield app
        with app.app_context():
            app.config["SESSION_SQLALCHEMY"].engine.dispose()
    else:
        yield files_app(tmp_path) if request.param == "files" else cachelib_app()


def test_what_was_saved_last_is_loaded(app: Flask) -> None:
    store = store_of(app)
    assert store.load("a") is None
    keep(store, "a", DATA)
    keep(store, "b", {"v": 2})
    assert store.load("a") == DATA
    keep(store, "a", {"v": 3})
    assert (store.load("a"), store.load("b")) == ({"v": 3}, {"v": 2})
    store.delete("a")
    store.delete("a")
    assert (store.load("a"), store.load("b")) == (None, {"v": 2})


def test_what_was_loaded_is_a_copy(app: Flask) -> None:
    store = store_of(app)
    keep(store, "a", DATA)
    loaded = store.load("a")
    assert loaded is not None
    loaded["v"] = 2
    assert store.load("a") == DATA


def test_a_long_conversation(app: Flask) -> None:
    store = store_of(app)
    long = {"contents": ["長い話" * 100] * 1000}
    keep(store, "a", long)
    assert store.load("a") == long


def test_many_threads(app: Flask) -> None:
    """Check that a reader always gets one complete version."""
    store = store_of(app)
    keep(store, "shared", {"n": [0] * 500})
    barrier = threading.Barrier(8, timeout=10)

    def work(i: int) -> None:
        barrier.wait()
        for n in range(20):
            keep(store, f"own{i}", {"n": n})
            assert store.load(f"own{i}") == {"n": n}
            with suppress(ConversationBusy):
                keep(store, "shared", {"n": [i] * 500})
            record = store.load("shared")
            assert record is not None
            assert len(set(record["n"])) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_a_cookie_cannot_name_a_conversation(app: Flask) -> None:
    store = store_of(app)
    keep(store, "a", DATA)
    app.get("/")(lambda: [key for key in session if key != "_permanent"])
    for name in ("a", "chatstream:conversation:a", "../a", "session:a"):
        client = app.test_client()
        client.set_cookie("session", name)
        assert client.get("/").get_json() == []
    assert store.load("a") == DATA


def test_no_context_is_needed_and_none_is_left(app: Flask) -> None:
    store = store_of(app)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(keep, store, "a", DATA).result()
        assert pool.submit(store.load, "a").result() == DATA


def test_redis_down(redis_port: int, tmp_path: Path) -> None:
    app = Flask("host")
    with_redis = run_redis(tmp_path)
    client = connect(next(with_redis))
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    Session(app)  # type: ignore[no-untyped-call]
    store = store_of(app)
    keep(store, "a", DATA)
    client.set_retry(None)  # type: ignore[arg-type]
    with_redis.close()  # type: ignore[attr-defined]
    actions: list[Callable[[], object]] = [
        lambda: store.load("a"),
        lambda: keep(store, "a", {}),
        lambda: store.delete("a"),
    ]
    for act in actions:
        with pytest.raises(StoreUnavailable, match="cannot be read or written at the moment"):
            act()
    client.close()


# -- the embedded files ------------------------------------------------------------------------------


def files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "lock")


def test_files_are_json_for_nobody_else(tmp_path: Path) -> None:
    keep(store_of(files_app(tmp_path)), "a", DATA)
    (file,) = files_in(tmp_path / "store")
    content = file.read_bytes()
    assert json.loads(content[4:]) == DATA  # after 4 bytes with the time of expiry
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    store = store_of(files_app(tmp_path))
    keep(store, "a", DATA)
    (file,) = files_in(tmp_path / "store")
    trap = tmp_path / "trap"
    file.write_bytes(file.read_bytes()[:4] + b"cos\nmkdir\n(V" + str(trap).encode() + b"\ntR.")
    assert store.load("a") is None
    assert not trap.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x00\x00\x00\x00", b"\x00\x00\x00\x00{", b"\x00\x00\x00\x00\xff"]
)
def test_a_damaged_file_is_kept_aside_and_reported_and_the_conversation_begins_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(files_app(tmp_path))
    keep(store, "a", DATA)
    (file,) = files_in(tmp_path / "store")
    file.write_bytes(content)
    assert store.load("a") is None
    (kept,) = files_in(tmp_path / "store")
    assert f"is damaged, was moved to {kept} and begins anew" in caplog.text
    assert kept.stat().st_mode & 0o777 == 0o600
    keep(store, "a", DATA)
    assert store.load("a") == DATA
    store.purge()
    assert kept.read_bytes() == content


def test_of_damaged_files_the_newest_hundred_are_kept(tmp_path: Path) -> None:
    """They had no limit."""
    cache = JSONFileCache(tmp_path)
    for number in range(MAX_DAMAGED + 5):
        path = tmp_path / f"{number:064x}.1{DAMAGED_SUFFIX}"
        path.write_bytes(b"")
        os.utime(path, (number, number))
    cache.purge()
    assert sorted(int(path.name[:64], 16) for path in tmp_path.iterdir()) == list(range(5, MAX_DAMAGED + 5))


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes()[4:].split(b"\n")


def say(store: ConversationStore, words: str) -> None:
    lease: Any = store.hold("a")
    record = lease.load() or {"said": []}
    assert lease.save({"said": [*record["said"], words]})
    lease.close()


def test_a_turn_that_a_killed_process_was_appending_is_kept_aside_and_the_earlier_ones_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(files_app(tmp_path))
    for words in ("one", "two", "three"):
        say(store, words)
    (file,) = files_in(tmp_path / "store")
    whole = file.read_bytes()
    for num_bytes in range(1, len(lines_of(file)[-1])):
        torn = whole[:-num_bytes]
        file.write_bytes(torn)
        assert store.load("a") == {"said": ["one", "two"]}
        (aside,) = (path for path in files_in(tmp_path / "store") if path != file)
        assert f"a conversation file is damaged and was moved to {aside}" in caplog.text
        assert aside.stat().st_mode & 0o777 == 0o600
        assert file.read_bytes() + b"\n" + aside.read_bytes() == torn
        say(store, "three")
        assert file.read_bytes()[4:] == whole[4:]
        aside.unlink()
    file.write_bytes(whole + b"\n" + bytes(1000))  # as a power failure may leave it
    assert store.load("a") == {"said": ["one", "two", "three"]}


def test_a_reader_that_meets_a_turn_half_written_damages_nothing(tmp_path: Path) -> None:
    store: Any = store_of(files_app(tmp_path))
    say(store, "one")
    say(store, "two")
    (file,) = files_in(tmp_path / "store")
    whole = file.read_bytes()
    key = KEY_PREFIX + "a"
    torn = lines_of(file)
    torn[-1] = torn[-1][:-1]
    with pytest.raises(DamagedLines) as caught:
        read_lines(torn)
    store._cache.set_aside_lines(key, torn, caught.value)  # by now the rest has been written
    assert file.read_bytes() == whole


def test_a_file_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path) -> None:
    store = store_of(files_app(tmp_path))
    say(store, "new")
    (file,) = files_in(tmp_path / "store")
    file.write_bytes(bytes(4) + json.dumps({"chat_prompt": {"said": ["old", "日本"]}}).encode())
    assert store.load("a") == {"said": ["old", "日本"]}
    say(store, "one")
    say(store, "two")
    assert store.load("a") == {"said": ["old", "日本", "one", "two"]}
    assert len(lines_of(file)) == 2


READ = """
import json, sys
from flask import Flask
from chatstream_flask import ChatStream
app = Flask("host")
app.config["CHATSTREAM_STORE_DIR"] = sys.argv[1]
chat_stream = ChatStream(use_mock_response=True, app=app)
print(json.dumps(chat_stream.store(app).load("a")))
"""


def test_it_survives_a_new_process(tmp_path: Path) -> None:
    keep(store_of(files_app(tmp_path)), "a", DATA)
    command = [sys.executable, "-c", READ, str(tmp_path / "store")]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(output) == DATA


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    store = store_of(files_app(tmp_path))
    keep(store, "a", DATA)
    with pytest.raises(StoreUnavailable) as caught:
        keep(store, "a", {"v": object()})
    assert isinstance(caught.value.__cause__, TypeError)
    assert store.load("a") == DATA
    assert len(files_in(tmp_path / "store")) == 1


def test_a_disk_that_fails_is_an_error_and_never_a_new_start(tmp_path: Path) -> None:
    store = store_of(files_app(tmp_path))
    keep(store, "a", DATA)
    (file,) = files_in(tmp_path / "store")
    file.unlink()
    file.mkdir()  # neither read, nor replaced, nor deleted
    acts: list[Callable[[], object]] = [
        lambda: store.load("a"),
        lambda: keep(store, "a", DATA),
        lambda: store.delete("a"),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable):
            act()
    file.rmdir()
    assert os.listdir(file.parent) == ["lock"]  # no partly written file is left
    shutil.rmtree(file.parent)  # the volume is gone
    with pytest.raises(StoreUnavailable):
        keep(store, "a", DATA)


def test_what_is_over_is_gone(tmp_path: Path) -> None:
    cache = JSONFileCache(tmp_path)
    cache.set("a", 1, timeout=-10)
    cache.set("b", 2, timeout=10)
    cache.set("c", 3, timeout=0)  # never
    assert [cache.get(key) for key in "abcd"] == [None, 2, 3, None]


def kept(cache: JSONFileCache, keys: str) -> str:
    return "".join(key for key in keys if cache.get(key) is not None)


def test_the_limits_remove_the_least_recently_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = JSONFileCache(tmp_path, max_files=3)
    for seconds, key in enumerate("abcde", 100):
        cache.set(key, "1", timeout=seconds)
    cache.set("z", "never expires", timeout=0)
    assert cache.purge() == 3
    assert kept(cache, "abcdez") == "dez"
    assert "the 3 least recently used sessions and conversations were removed" in caplog.text
    small = JSONFileCache(tmp_path, max_bytes=2 * len("....") + len('"1"') + len('"never expires"'))
    assert small.purge() == 1
    assert kept(cache, "dez") == "ez"


def test_what_is_in_use_stays_though_it_has_expired_or_exceeds_the_limits(tmp_path: Path) -> None:
    cache = JSONFileCache(tmp_path, max_files=1)
    cache.set("a", 1, timeout=-10)
    for seconds, key in enumerate("bcd", 100):
        cache.set(key, 1, timeout=seconds)
    in_use = {cache._get_filename(key) for key in "ab"}
    assert cache.purge(in_use.__contains__) == 2
    assert set(cache._list_dir()) == in_use


def test_what_is_written_during_a_purge_stays(tmp_path: Path) -> None:
    """The purge has seen an expired file; then its visitor came back."""
    cache = JSONFileCache(tmp_path)
    cache.set("a", 1, timeout=-10)
    cache.set("b", 1, timeout=-10)
    (entry, _) = list(cache._entries())
    for key in "ab":
        cache.set(key, 2, timeout=10)
    assert not cache._delete(entry, lambda path: False)
    assert kept(cache, "ab") == "ab"


def test_a_purge_touches_no_file_of_others(tmp_path: Path) -> None:
    names = ["README", "lock", "a" * 63, "f" * 64 + ".old"]
    for name in names:
        (tmp_path / name).write_bytes(b"old text, which read as a time is long past")
    cache = JSONFileCache(tmp_path, max_files=1)
    assert cache.purge() == 0
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_purge_removes_what_a_process_that_died_was_writing(tmp_path: Path) -> None:
    cache = JSONFileCache(tmp_path)
    old, new = (tmp_path / f"{name}.__wz_cache" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert cache.purge() == 0
    assert os.listdir(tmp_path) == [new.name]


def test_rows_of_flask_session_in_sql_go_when_they_have_expired(tmp_path: Path) -> None:
    app = sqlalchemy_app(tmp_path)
    app.config["PERMANENT_SESSION_LIFETIME"] = 0
    store = store_of(app)
    keep(store, "a", DATA)
    with app.app_context():
        model = app.session_interface.sql_session_model  # type: ignore[attr-defined]
        assert model.query.count() == 1
        store.purge()
        assert model.query.count() == 0
        app.config["SESSION_SQLALCHEMY"].engine.dispose()


@pytest.mark.parametrize("jump", [10**8, -(10**8)])
def test_a_jump_of_the_clock_and_its_correction_lose_nothing(tmp_path: Path, jump: int) -> None:
    wall, steady = FakeClock(1.7e9), FakeClock()
    cache = JSONFileCache(tmp_path, clock=ExpiryClock(wall, steady))
    cache.set("before", 1, timeout=100)
    wall.advance(jump)
    cache.set("after", 2, timeout=100)
    assert (cache.get("before"), cache.get("after"), cache.purge()) == (1, 2, 0)
    wall.advance(-jump)
    assert (cache.get("before"), cache.get("after"), cache.purge()) == (1, 2, 0)
    for clock in (wall, steady):
        clock.advance(101)
    assert cache.get("before") is None


@pytest.mark.parametrize(
    "make", [lambda p: p / "file" / "below", lambda p: p / "file", lambda p: Path("/proc")]
)
def test_a_folder_that_cannot_be_written_names_the_setting(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    (tmp_path / "file").write_text("")
    app = Flask("host")
    app.config["CHATSTREAM_STORE_DIR"] = str(make(tmp_path))
    with pytest.raises(ConfigError, match=r"conversations cannot be stored in .*; set CHATSTREAM_STORE_DIR"):
        ChatStream(use_mock_response=True, app=app)
    assert "chatstream" not in app.extensions


def test_the_default_folder_is_in_the_instance_folder(tmp_path: Path) -> None:
    app = Flask("host", instance_path=str(tmp_path / "instance"))
    keep(store_of(app), "a", DATA)
    assert [file.parent for file in files_in(tmp_path)] == [tmp_path / "instance" / "chatstream"]
    assert os.listdir(tmp_path) == ["instance"]
