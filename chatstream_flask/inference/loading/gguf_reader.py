"""open_gguf: a GGUF file's metadata and tensors, read in a tenth of a second instead of some seconds."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

LENGTH = struct.Struct("<Q")
ARRAY_HEADER = struct.Struct("<IQ")  # type and number of the elements


def open_gguf(path: str) -> Any:
    """Return a `gguf.GGUFReader` of a file.

    A vocabulary is an array of some hundred thousand strings. The package's own reader makes two views of
    np.memmap for each of them, which is slow.
    """
    from gguf import GGUFReader, GGUFValueType

    array, string = int(GGUFValueType.ARRAY), int(GGUFValueType.STRING)

    class Reader(GGUFReader):
        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = mapped.view(np.ndarray)

        def _get_field_parts(self, offset: int, raw_type: int) -> Any:
            if raw_type != array or self.byte_order == "S":
                return super()._get_field_parts(offset, raw_type)
            kind, num = ARRAY_HEADER.unpack_from(self._data, offset)
            if kind != string:
                return super()._get_field_parts(offset, raw_type)
            bytes_, at, parts = memoryview(self._data), offset + ARRAY_HEADER.size, []
            for _ in range(num):
                (length,) = LENGTH.unpack_from(bytes_, at)
                at += LENGTH.size + length
                parts.append(bytes_[at - length : at])
            return at - offset, parts, list(range(num)), [GGUFValueType.ARRAY, GGUFValueType.STRING]

    return Reader(path)
