"""A page on which operators watch the server, off unless CHATSTREAM_STATUS turns it on."""

from .page import add_status_page

__all__ = ["add_status_page"]
