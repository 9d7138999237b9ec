"""EngineList: the URLs of the engines, given as text or kept in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..config import shown
from ..errors import ConfigError

URL = re.compile(r"https?://[^\s/?#@,]+(/[^\s?#,]*)?")
FILE = "file:"


class EngineList:
    """One or more URLs, separated by commas or spaces; or `file:` and the path of a file that has them.

    A file is read again when it has changed; a line that begins with `#` is a comment.
    """

    def __init__(self, given: str | Sequence[str]) -> None:
        """Read the URLs.

        :raises ConfigError: there is none, or one is no URL
        """
        text = given if isinstance(given, str) else ",".join(given)
        self._path = text.strip().removeprefix(FILE) if text.strip().startswith(FILE) else None
        self._text = text
        self._stamp: tuple[int, int] | None = None  # of the file when it was last read
        self.urls = self.read_again() or []
        if not self.urls:
            raise ConfigError("engine must name at least one URL, such as http://127.0.0.1:8000")

    def read_again(self) -> list[str] | None:
        """Return the URLs if they may have changed since the last call, else None.

        :raises ConfigError: the file cannot be read, or has something else than URLs
        """
        if self._path is None:
            text, self._text = self._text, ""
            return parse_urls(text) if text else None
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return None
            with open(self._path, encoding="utf-8") as file:
                lines = [line for line in file if not line.lstrip().startswith("#")]
        except OSError as error:
            raise ConfigError(f"the file of the engines' URLs cannot be read: {error}") from error
        self._stamp = stamp
        self.urls = parse_urls(" ".join(lines))
        return self.urls


def parse_urls(text: str) -> list[str]:
    """Return each URL once, without a slash or "/v1" at its end.

    :raises ConfigError: one is no URL
    """
    urls = [url for url in re.split(r"[\s,]+", text) if url]
    for url in urls:
        if not URL.fullmatch(url):
            raise ConfigError(f"an engine must be a URL such as http://127.0.0.1:8000, not {shown(url)}")
    return list(dict.fromkeys(url.rstrip("/").removesuffix("/v1") for url in urls))
