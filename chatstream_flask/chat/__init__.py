"""One reply of a conversation, from the request to the wire."""
