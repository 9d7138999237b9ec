"""native_library: the compiled code, loaded once for all who call it."""

from __future__ import annotations

import ctypes
from ctypes import c_int64
from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def native_library() -> Any:
    """Return the compiled library, or None if it was not built."""
    spec = find_spec("chatstream_flask.inference.decoders.native._decoder")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.work_size.restype = c_int64
    return library
