"""A page on which operators watch the server, off unless CHATSTREAM_STATUS turns it on."""
