"""From a model to a running server."""
