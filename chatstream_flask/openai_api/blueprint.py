"""A blueprint whose errors are all in OpenAI's format, wrong methods and unknown paths included."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from ..chat.service import ChatService
from ..errors import ChatStreamError
from ..http.request_check import check_host, check_origin
from ..monitoring.origin import assign_request_id
from .errors import ApiError, error_response, http_error_response
from .keys import check_key

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
View = Callable[..., Response]


class ApiBlueprint(Blueprint):
    """Checks the host and the key of each caller, and answers errors as OpenAI's API does.

    :param open_paths: ends of paths that need neither
    """

    def __init__(
        self, chat_stream: ChatService, name: str, url_prefix: str | None, *, open_paths: tuple[str, ...] = ()
    ) -> None:
        super().__init__(chat_stream.name.blueprint(name), __name__, url_prefix=url_prefix)
        self.before_request(assign_request_id)

        @self.before_request
        def check_caller() -> None:
            if open_paths and request.path.endswith(open_paths):
                return
            settings = chat_stream.state.settings
            check_host(request, settings.allowed_hosts)
            if settings.api_keys is None:
                check_origin(request, settings.allowed_origins)
            elif request.method != "OPTIONS":  # preflight requests of browsers have no key
                # A page of another origin may have a key: no browser adds one by itself, as it adds cookies.
                check_key(request.headers.get("Authorization", ""), settings.api_keys)

        @self.errorhandler(ChatStreamError)
        def refuse(error: ChatStreamError) -> Response:
            return chat_stream.refuse(error, error_response)

        @self.errorhandler(RecursionError)
        def refuse_depth(error: RecursionError) -> Response:
            return error_response(ApiError("the body is nested too deeply"))

        @self.errorhandler(HTTPException)
        def refuse_http(error: HTTPException) -> Response:
            return http_error_response(error)

        @self.errorhandler(Exception)
        def fail(error: Exception) -> Response:
            chat_stream.logger.exception("a request failed")
            return error_response(ChatStreamError("the server failed; its log says why"))

    def add_view(self, path: str, method: str, view: View, *others: str) -> None:
        """Add a route for all methods, so that a wrong one also gets an error in OpenAI's format.

        :param others: methods of this path that have views of their own
        """

        def checked(**parts: str) -> Response:
            if request.method not in (method, "HEAD" if method == "GET" else method):
                return _wrong_method(", ".join((method, *others)))
            return view(**parts)

        methods = [name for name in METHODS if name not in others]
        self.add_url_rule(path, endpoint=view.__name__, view_func=checked, methods=methods)


def _wrong_method(allowed: str) -> Response:
    message = f"{request.path} takes {allowed}, not {request.method}"
    response = error_response(ApiError(message, code="method_not_allowed", status=405))
    response.headers["Allow"] = allowed
    return response
