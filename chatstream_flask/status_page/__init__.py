"""The status page for operators; off unless CHATSTREAM_STATUS turns it on."""
