"""The embedded default: Flask-Session on files, as JSON, for apps that bring no server-side session."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from cachelib.file import FileSystemCache
from flask import Flask
from flask_session.cachelib import CacheLibSessionInterface

from ..errors import ConfigError


class JSONSerializer:
    """cachelib's own writes an empty file for what is not JSON; this one raises TypeError."""

    def dump(self, value: Any, file: IO[bytes]) -> None:
        file.write(json.dumps(value).encode())


class JSONFileCache(FileSystemCache):
    """One JSON file a key, replaced atomically. Where its base only warns that the disk failed, it raises."""

    serializer = JSONSerializer()

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), threshold=0)  # a threshold would delete living sessions

    def get(self, key: str) -> Any:
        """None only for what was not written or is over: what cannot be read must not look like a new start."""
        try:
            with open(self._get_filename(key), "rb") as file:
                (expires_at,) = struct.unpack("I", file.read(4))  # seconds since 1970; 0: never
                return json.load(file) if not expires_at or expires_at >= time.time() else None
        except FileNotFoundError:
            return None

    def set(self, key: str, value: Any, timeout: Any = None, mgmt_element: bool = False) -> bool:
        if not super().set(key, value, timeout, mgmt_element):
            raise OSError(f"could not write into {self._path}")
        return True

    def delete(self, key: str, mgmt_element: bool = False) -> bool:
        if not super().delete(key, mgmt_element):
            raise OSError(f"could not delete from {self._path}")
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
