"""Lock on the folder of the conversations, which one process at a time may write."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, finalize

from ..errors import ConfigError

fcntl: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

logger = logging.getLogger("chatstream_flask")

FILE_NAME = "lock"


class FolderInUse(ConfigError):
    """Another process uses the folder; `parent_pid` is that of the process that started it, if known."""

    def __init__(self, directory: Path, pid: int | None, parent_pid: int | None) -> None:
        super().__init__(
            f"the conversations in {directory} are used by "
            + (f"process {pid}" if pid else "another process")
            + ", and a second one would overwrite its turns: set CHATSTREAM_STORE_DIR to a folder of its "
            "own, or CHATSTREAM_STORE to a store that several processes may use"
        )
        self.parent_pid = parent_pid


class FolderLock:
    """Lock that is held until the process ends, however it ends, or until this object is collected."""

    def __init__(self, directory: Path) -> None:
        """Lock the folder.

        :raises FolderInUse: another process has locked it
        :raises OSError: it cannot be written
        """
        file = os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file, directory)
        except BaseException:
            os.close(file)
            raise
        with suppress(OSError):  # on a full disk the others only do not learn who it is
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {os.getppid()}".encode())
        finalize(self, os.close, file)


_locks: WeakValueDictionary[tuple[int, str], FolderLock] = WeakValueDictionary()  # by process and folder
_locking = threading.Lock()


def lock_folder(directory: Path) -> FolderLock:
    """Return the lock of this process on a folder; all of its stores share one.

    :raises FolderInUse: another process has locked it
    :raises OSError: it cannot be written
    """
    key = (os.getpid(), os.path.realpath(directory))
    with _locking:
        lock = _locks.get(key)
        if lock is None:
            lock = _locks[key] = FolderLock(directory)
        return lock


def _lock(file: int, directory: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # either may be the answer of POSIX systems
        pids = [int(word) for word in os.pread(file, 64, 0).split() if word.isdigit()]
        raise FolderInUse(directory, *(pids if len(pids) == 2 else (None, None))) from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): let one process only use it", directory, error.strerror)
