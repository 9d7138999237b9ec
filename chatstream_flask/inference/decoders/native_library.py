"""The compiled library of the decoder for CPUs."""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_int64
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

logger = logging.getLogger("chatstream_flask")


@cache
def native_library() -> Any:
    """Return the compiled library; None if it was not built, or has other structures than its source."""
    spec = find_spec("chatstream_flask.inference.decoders.native._decoder")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin)
    if is_older_than_source(library):
        logger.warning("the compiled decoder is older than its source and is not used: run scripts/install")
        return None
    loaded = ctypes.CDLL(str(library))
    loaded.work_size.restype = c_int64
    return loaded


def is_older_than_source(library: Path) -> bool:
    """Return whether the structures of the source may have changed since; a wheel has no source."""
    source = library.with_name("interface.h")
    return source.exists() and source.stat().st_mtime > library.stat().st_mtime
