"""Options of the chat page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..config import check_names, shown
from ..errors import ConfigError

LANGUAGES = ("en", "ja")

Text = str | dict[str, str]
"""One text for all languages, or one for each: `{"en": "Hello", "ja": "こんにちは"}`."""


@dataclass(frozen=True, kw_only=True)
class WebUIParams:
    """Options of the chat page (`web_ui_params`); where a text is None the page has its own."""

    title: Text = "ChatStream"  # of the page and the browser's tab
    greeting: Text | None = None  # shown until there is a message
    placeholder: Text | None = None  # in the empty message field
    examples: list[str] | dict[str, list[str]] | None = None  # prompts to start with; [] shows none
    language: str | None = None  # "en" or "ja" for all visitors; None follows the browser
    show_settings: bool = True  # the dialog with temperature and so on
    show_feedback: bool = True  # buttons to like and dislike a reply
    show_model: bool = True  # the name of the model, beside the title

    def __post_init__(self) -> None:
        for name in ("title", "greeting", "placeholder"):
            _check_text(name, getattr(self, name), _is_text, "a non-empty string")
        _check_text("examples", self.examples, _is_text_list, "a list of non-empty strings")
        if self.title is None:
            raise ConfigError("title must be a non-empty string, not None")
        if self.language not in (None, *LANGUAGES):
            raise ConfigError(f"language must be None, {_quoted(LANGUAGES)}, not {shown(self.language)}")
        for name in ("show_settings", "show_feedback", "show_model"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, not {shown(getattr(self, name))}")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> WebUIParams:
        """Check the options.

        :raises ConfigError: a field is unknown, or its value is not allowed
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise ConfigError(f"web_ui_params must be a dict, not {shown(given)}")
        check_names("web_ui_params", dict(given), cls)
        return cls(**given)

    @property
    def first_title(self) -> str:
        """The title that the page has until it knows its visitor's language."""
        return self.title if isinstance(self.title, str) else next(iter(self.title.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data for the page."""
        return asdict(self)


def _check_text(name: str, value: Any, is_right: Any, what: str) -> None:
    by_language = value if isinstance(value, dict) else {LANGUAGES[0]: value}
    is_known = bool(by_language) and set(by_language) <= set(LANGUAGES)
    if value is None or (is_known and all(map(is_right, by_language.values()))):
        return
    raise ConfigError(
        f"{name} must be {what}, or a dict of these by language ({_quoted(LANGUAGES)}), not {shown(value)}"
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(repr(word) for word in words)
