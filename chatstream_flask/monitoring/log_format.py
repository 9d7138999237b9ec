"""Logging set-up of the `serve` command: plain text or JSON lines.

An app that embeds ChatStream configures logging itself.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from .access_log import FIELDS
from .escape import escaped

HUMAN = "%(asctime)s %(levelname)s %(message)s"


def set_up_logging(log_format: str) -> None:
    """Send all log records to standard error; replaces the root logger's handlers.

    :param log_format: "human" or "json"
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter(HUMAN))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class HumanFormatter(logging.Formatter):
    """Lines of text; those after the first of a record, such as a traceback's, are indented."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(escaped(line) for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, and the message or a request's fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        line |= getattr(record, FIELDS, None) or {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, ensure_ascii=False, default=str))
