"""Chat turns: from the request to the reply on the wire."""
