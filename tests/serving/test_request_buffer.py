"""Where a request ends in a stream of bytes: the same for every way in which it may be split."""

from __future__ import annotations

from contextlib import suppress

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.serving.request_buffer import MAX_SIZE_LINE, Progress, RequestBuffer

MAX_HEAD_LEN = 200
MAX_BODY_LEN = 50

POST = b"POST /chat_stream HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
COMPLETE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    POST + b"\r\n",
    POST + b"Content-Length: 0\r\n\r\n",
    POST + b"content-length:\t5 \r\n\r\nhello",
    POST + b"Content-Length: 4\r\n\r\n\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n6 ; name=value\r\n world\r\n000\r\n\r\n",
    CHUNKED + b'2;a="b;c"\r\n\r\n\r\nA\r\n0123456789\r\n0;last\r\nChecksum: 1\r\nOther: 2\r\n\r\n',
    POST + b"Transfer-Encoding: gzip, Chunked\r\n\r\n0\r\n\r\n",
]
MALFORMED = [
    b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"\n",
    b"x" * (MAX_HEAD_LEN + 4),
    b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_LEN + b"\r\n\r\n",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    POST + b"Content-Length: 5, 5\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: \xb2\r\n\r\n",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    CHUNKED + b"g\r\n",
    CHUNKED + b"\r\n",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"2\r\nabc",
    CHUNKED + b"2\r\nab\n",
    CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n",
    CHUNKED + b"0\r\nA: " + b"x" * MAX_HEAD_LEN + b"\r\n\r\n",
    CHUNKED + b"1;" + b"x" * (MAX_SIZE_LINE + 1),
]
LARGE = [
    POST + b"Content-Length: 51\r\n\r\n",
    POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n",
    CHUNKED + b"33\r\n",
    CHUNKED + b"1E\r\n" + b"x" * 30 + b"\r\n15\r\n",
    CHUNKED + b"f" * 100 + b"\r\n",
    CHUNKED + (b"1;" + b"x" * 4000 + b"\r\ny\r\n") * 3,
]
UNFINISHED = [
    b"",
    b"G",
    b"\r",
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    POST + b"Content-Length: 5\r\n\r\nhell",
    CHUNKED,
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED + b"0\r\n",
    CHUNKED + b"0\r\nA: b\r\n",
]


def buffer(*pieces: bytes) -> RequestBuffer:
    buffer = RequestBuffer(MAX_HEAD_LEN, MAX_BODY_LEN)
    for piece in pieces:
        buffer.feed(piece)
    return buffer


@pytest.mark.parametrize("data", COMPLETE)
def test_a_request_ends_where_its_framing_says(data: bytes) -> None:
    request = buffer(data + b"GET /next")
    assert (request.progress, request.take()) == (Progress.COMPLETE, (data, b"GET /next"))
    assert buffer(data[:-1]).needs_more


@pytest.mark.parametrize("data", MALFORMED)
def test_what_no_more_bytes_can_mend_is_not_waited_for(data: bytes) -> None:
    request = buffer(data)
    assert (request.progress, request.take()) == (Progress.MALFORMED, (data, b""))


@pytest.mark.parametrize("data", LARGE)
def test_a_long_body_is_known_by_its_framing(data: bytes) -> None:
    assert buffer(data).progress is Progress.LARGE


@pytest.mark.parametrize("data", UNFINISHED)
def test_an_unfinished_request_needs_more(data: bytes) -> None:
    assert buffer(data).needs_more


@given(st.data(), st.sampled_from(COMPLETE + MALFORMED + LARGE + UNFINISHED), st.binary(max_size=5))
def test_every_split_gives_the_same(chosen: st.DataObject, request_data: bytes, rest: bytes) -> None:
    data = request_data + rest
    cuts = sorted(chosen.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    split = buffer(*(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)))
    whole = buffer(data)
    assert split.progress is whole.progress
    assert split.take() == whole.take()
    assert split.expects_continue == whole.expects_continue


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    whole = buffer(CHUNKED + data)
    assert whole.progress is buffer(CHUNKED, *(data[i : i + 1] for i in range(len(data)))).progress
    assert buffer(data).progress is buffer(*(data[i : i + 1] for i in range(len(data)))).progress


def test_a_client_that_waits_for_100_continue_is_known() -> None:
    head = POST + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n"
    assert buffer(head).expects_continue and not buffer(head).has_body_begun
    assert buffer(head + b"h").has_body_begun
    assert not buffer(head.replace(b"HTTP/1.1", b"HTTP/1.0")).expects_continue
    assert not buffer(POST + b"\r\n").expects_continue


# -- beside gunicorn's parser, which reads what was found complete ------------------------------------


def left_by_gunicorn(data: bytes) -> bytes:
    """Return the bytes that gunicorn's parser leaves after one request.

    :raises OSError: it wants more
    :raises ParseException: it refuses the request
    """
    parser = get_parser(Config(), iter([data]), ("127.0.0.1", 1))
    request = next(parser)
    assert request.body is not None
    request.body.read()
    return bytes(parser.unreader.take_buffered())


@pytest.mark.parametrize("data", COMPLETE)
def test_gunicorn_ends_a_request_at_the_same_place(data: bytes) -> None:
    assert left_by_gunicorn(data + b"GET /next") == b"GET /next"


@pytest.mark.parametrize("data", [data for data in MALFORMED if len(data) < MAX_HEAD_LEN])
def test_gunicorn_refuses_what_is_malformed(data: bytes) -> None:
    with pytest.raises(ParseException):
        left_by_gunicorn(data)


@given(
    st.sampled_from(COMPLETE + MALFORMED + UNFINISHED),
    st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from([b"", b"\r\n", b":", b"5", b"chunked", b"\0", b";"]))
    ),
)
def test_gunicorn_never_waits_for_more_than_is_complete(data: bytes, edits: list[tuple[int, bytes]]) -> None:
    """Requests changed at random places: it may refuse what is complete here, but it never wants more."""
    for at, inserted in edits:
        data = data[:at] + inserted + data[at + 1 :]
    request = RequestBuffer(10_000, 10_000)
    if request.feed(data) is Progress.COMPLETE:
        whole, _ = request.take()
        with suppress(ParseException):
            assert left_by_gunicorn(whole) == b""
