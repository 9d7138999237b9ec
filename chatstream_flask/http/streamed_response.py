"""Response whose body may fail while it is being made."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.wsgi import ClosingIterator

from ..errors import ChatStreamError
from .disconnect import reset_on_close
from .problem import problem_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

STATUS_AT_ONCE = ("Granian",)  # servers that read the status before the body, whatever PEP 3333 says


class BodyCut(ConnectionResetError):
    """Raised into the server in the middle of a body, so that its client notices that it is incomplete.

    Servers take it for a lost connection: they close it without the last chunk, and log no traceback.
    """

    def __init__(self, cause: ChatStreamError) -> None:
        super().__init__(errno.ECONNRESET, str(cause))


class StreamedResponse(Response):
    """Response that begins with the first bytes of its body, an iterator that may raise ChatStreamError.

    Before the first bytes, such an error becomes the status; after them it cuts the body short.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> ClosingIterator:
        body, status, headers = self.get_wsgi_response(environ)

        def begin() -> None:
            start_response(status, headers)

        chunks = iter(body)
        if environ.get("SERVER_SOFTWARE") in STATUS_AT_ONCE:
            begin()
            return ClosingIterator(_cut_on_error(chunks, environ), self.close)
        return ClosingIterator(self._begin_late(chunks, begin, environ, start_response), self.close)

    def _begin_late(
        self,
        chunks: Iterator[bytes],
        begin: Callable[[], None],
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterator[bytes]:
        """Call `start_response` when the first bytes are there, as WSGI (PEP 3333) allows, and yield all."""
        try:
            first = next(chunks, b"")
        except ChatStreamError as error:
            yield self._refuse(error, environ, start_response)
            return
        begin()
        yield first
        yield from _cut_on_error(chunks, environ)

    def _refuse(
        self, error: ChatStreamError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> bytes:
        """Send an error in place of the body, with the other headers of the response, such as cookies."""
        problem = problem_response(error)
        self.headers.update(problem.headers)
        start_response(problem.status, self.get_wsgi_headers(environ).to_wsgi_list())
        return problem.get_data()


def _cut_on_error(chunks: Iterator[bytes], environ: WSGIEnvironment) -> Iterator[bytes]:
    try:
        yield from chunks
    except ChatStreamError as error:
        reset_on_close(environ)
        raise BodyCut(error) from error
