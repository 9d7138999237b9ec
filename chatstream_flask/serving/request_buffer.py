"""Find the end of an HTTP/1 request in the bytes received so far, without parsing more than its framing."""

from __future__ import annotations

from enum import Enum

CRLF = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
MAX_SIZE_LINE = 8190  # bytes of one chunk-size line; gunicorn refuses longer ones, too
MAX_LENGTH_DIGITS = 18  # of a Content-Length or a chunk size; more is larger than any limit
CHUNK_OVERHEAD = 2  # a chunked body may take this many times its limit on the wire
HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")


class Progress(Enum):
    """How far a request has arrived. Only the first two need more bytes."""

    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"
    LARGE = "large"  # the body is longer than the limit and is not waited for
    MALFORMED = "malformed"  # the server's parser refuses it, whatever follows


class RequestBuffer:
    """Received bytes of one connection, from the start of a request.

    The result does not depend on how the bytes were split. This does not validate the request: the server's
    own parser reads `take()` afterwards and decides. A request that the two could understand differently is
    `MALFORMED` here, so that the server never waits for bytes that its parser does not need.
    """

    def __init__(self, max_head_len: int, max_body_len: int) -> None:
        self.progress = Progress.HEAD
        self.expects_continue = False  # the client waits for "100 Continue" before it sends the body
        self._max_head_len = max_head_len
        self._max_body_len = max_body_len
        self._bytes = bytearray()
        self._body_at = 0  # where the body starts
        self._end: int | None = None  # where the request ends, once that is known
        self._at = 0  # everything before this position was examined
        self._is_in_trailers = False
        self._num_decoded = 0  # bytes of a chunked body without its framing

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def needs_more(self) -> bool:
        return self.progress in (Progress.HEAD, Progress.BODY)

    @property
    def has_body_begun(self) -> bool:
        return len(self._bytes) > self._body_at

    def feed(self, data: bytes) -> Progress:
        """Append `data`; return how much of the request has arrived."""
        self._bytes += data
        if self.progress is Progress.HEAD:
            self.progress = self._look_at_head()
        if self.progress is Progress.BODY:
            self.progress = self._look_at_body()
        return self.progress

    def take(self) -> tuple[bytes, bytes]:
        """Return the bytes of the request and those that came after it."""
        end = len(self._bytes) if self.progress is not Progress.COMPLETE else self._end
        return bytes(self._bytes[:end]), bytes(self._bytes[end:])

    # -- the head --------------------------------------------------------------------------------------

    def _look_at_head(self) -> Progress:
        start = 2 if self._bytes.startswith(CRLF) else 0  # one empty line may come first
        if self._bytes.startswith(CRLF, start):
            return Progress.MALFORMED
        end = self._bytes.find(END_OF_HEAD, max(self._at - 3, start))
        if _has_bare_newline(self._bytes, max(self._at - 1, 0), len(self._bytes) if end < 0 else end):
            return Progress.MALFORMED
        self._at = len(self._bytes)
        if (len(self._bytes) - 3 if end < 0 else end) > self._max_head_len:
            return Progress.MALFORMED
        if end < 0:
            return Progress.HEAD
        self._at = self._body_at = end + len(END_OF_HEAD)
        request_line, *lines = bytes(self._bytes[start:end]).split(CRLF)
        parts = [line.partition(b":") for line in lines]
        fields = [(name.strip().lower(), value.strip(b" \t")) for name, _, value in parts]
        version = request_line.rpartition(b" ")[2]
        expectations = [value.lower() for name, value in fields if name == b"expect"]
        self.expects_continue = version == b"HTTP/1.1" and expectations == [b"100-continue"]
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        if codings:
            names = [name.strip().lower() for value in codings for name in value.split(b",")]
            is_clear = names[-1] == b"chunked" and names.count(b"chunked") == 1 and not lengths
            return Progress.BODY if is_clear and version == b"HTTP/1.1" else Progress.MALFORMED
        if not lengths:
            self._end = self._body_at
        elif len(lengths) > 1 or not lengths[0].isdigit():
            return Progress.MALFORMED
        elif len(lengths[0]) > MAX_LENGTH_DIGITS or int(lengths[0]) > self._max_body_len:
            return Progress.LARGE
        else:
            self._end = self._body_at + int(lengths[0])
        return Progress.BODY

    # -- the body --------------------------------------------------------------------------------------

    def _look_at_body(self) -> Progress:
        if self._end is not None:
            return Progress.COMPLETE if len(self._bytes) >= self._end else Progress.BODY
        progress = Progress.BODY
        while progress is Progress.BODY:
            at = self._at
            progress = self._look_at_trailers() if self._is_in_trailers else self._look_at_chunk()
            if self._at == at:
                break
        return progress

    def _look_at_chunk(self) -> Progress:
        """Move behind the next chunk if it has arrived."""
        if self._at - self._body_at > CHUNK_OVERHEAD * self._max_body_len + MAX_SIZE_LINE:
            return Progress.LARGE
        line_end = self._bytes.find(CRLF, self._at, self._at + MAX_SIZE_LINE + len(CRLF))
        if line_end < 0:
            is_too_long = len(self._bytes) - self._at > MAX_SIZE_LINE + len(CRLF)
            return Progress.MALFORMED if is_too_long else Progress.BODY
        digits = bytes(self._bytes[self._at : line_end]).partition(b";")[0].rstrip(b" \t")
        if not digits or not HEX_DIGITS.issuperset(digits):
            return Progress.MALFORMED
        size = int(digits, 16) if len(digits) <= MAX_LENGTH_DIGITS else self._max_body_len + 1
        data_at = line_end + len(CRLF)
        if size == 0:
            self._is_in_trailers, self._at = True, data_at
            return Progress.BODY
        if self._num_decoded + size > self._max_body_len:
            return Progress.LARGE
        data_end = data_at + size
        if not CRLF.startswith(self._bytes[data_end : data_end + len(CRLF)]):
            return Progress.MALFORMED
        if len(self._bytes) >= data_end + len(CRLF):
            self._num_decoded += size
            self._at = data_end + len(CRLF)
        return Progress.BODY

    def _look_at_trailers(self) -> Progress:
        """Find the end of the trailers: an empty line, at once if there are none."""
        if self._bytes.startswith(CRLF, self._at):
            self._end = self._at + len(CRLF)
            return Progress.COMPLETE
        end = self._bytes.find(END_OF_HEAD, self._at)
        if _has_bare_newline(self._bytes, self._at, len(self._bytes) if end < 0 else end):
            return Progress.MALFORMED
        if (len(self._bytes) - 3 if end < 0 else end) - self._at > self._max_head_len:
            return Progress.MALFORMED
        if end < 0:
            return Progress.BODY
        self._end = end + len(END_OF_HEAD)
        return Progress.COMPLETE


def _has_bare_newline(data: bytearray, start: int, end: int) -> bool:
    """Return whether a line ends without CR; the server's parser refuses such a request."""
    at = data.find(b"\n", start, end)
    while at >= 0:
        if at == 0 or data[at - 1] != 0x0D:
            return True
        at = data.find(b"\n", at + 1, end)
    return False
