"""The embedded default: Flask-Session on files, as JSON, for apps that bring no server-side session."""

from __future__ import annotations

import json
import logging
import os
import struct
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cachelib.file import FileSystemCache
from flask import Flask
from flask_session.cachelib.cachelib import CacheLibSessionInterface

from ..errors import ConfigError

logger = logging.getLogger("chatstream_flask")


class JSONFileCache(FileSystemCache):
    """One JSON file a key, replaced atomically. Where its base warns and goes on, it raises."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), threshold=0)  # a threshold would delete living sessions

    def get(self, key: str) -> Any:
        """None for what was never written, is over or is damaged; a failing disk must not look like that."""
        try:
            with open(self._get_filename(key), "rb") as file:
                (expires_at,) = struct.unpack("I", file.read(4))  # seconds since 1970; 0: never
                return json.load(file) if not expires_at or expires_at >= time.time() else None
        except FileNotFoundError:
            return None
        except (struct.error, ValueError) as error:
            logger.error("a file of a session or conversation is damaged, a new one begins: %s", error)
            return None

    def set(self, key: str, value: Any, timeout: Any = None, mgmt_element: bool = False) -> bool:
        content = struct.pack("I", self._normalize_timeout(timeout)) + json.dumps(value).encode()
        handle, name = tempfile.mkstemp(suffix=self._fs_transaction_suffix, dir=self._path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, self._get_filename(key))
        except BaseException:
            os.unlink(name)
            raise
        return True

    def purge(self) -> int:
        """Removes what is over; the number of files removed."""
        num_removed = 0
        for name in self._list_dir():
            with suppress(OSError, struct.error), open(name, "rb") as file:
                (expires_at,) = struct.unpack("I", file.read(4))
                if expires_at and expires_at < time.time():
                    os.remove(name)
                    num_removed += 1
        return num_removed

    def delete(self, key: str, mgmt_element: bool = False) -> bool:
        with suppress(FileNotFoundError):
            os.remove(self._get_filename(key))
        return True


def file_session_interface(app: Flask, directory: str | os.PathLike[str] | None) -> CacheLibSessionInterface:
    path = Path(directory or os.path.join(app.instance_path, "chatstream"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # an existing folder may be read-only
            pass
    except OSError as error:
        raise ConfigError(
            f"conversations cannot be kept in {path} ({error.strerror}); set CHATSTREAM_STORE_DIR"
        ) from error
    return CacheLibSessionInterface(app, JSONFileCache(path), permanent=False)
