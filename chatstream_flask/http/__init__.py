"""HTTP: request bodies, error responses, headers, disconnected clients and checks of the server."""
