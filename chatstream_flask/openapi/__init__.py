"""The OpenAPI 3.1 description of all routes."""

from .document import describe

__all__ = ["describe"]
