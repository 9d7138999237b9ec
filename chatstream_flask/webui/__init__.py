"""The chat page."""

from .page import create_webui_blueprint
from .params import WebUIParams

__all__ = ["WebUIParams", "create_webui_blueprint"]
