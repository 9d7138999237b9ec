"""Texts of the console chat in English and Japanese."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Words:
    """Texts in one language; the comments name their placeholders."""

    welcome: str
    how_to_end: str
    unknown: str  # {command}
    cleared: str
    nothing_to_regenerate: str
    too_long: str
    dropped: str  # {num_turns}
    stopped: str
    failed: str  # {error}


ENGLISH = Words(
    welcome=(
        "Chat with {model}.\n"
        "  /regenerate  generate another reply to the last message\n"
        "  /clear       start a new conversation\n"
        "  /help        show this help\n"
        "  /quit        end the chat, as Ctrl-D does; Ctrl-C stops a reply"
    ),
    how_to_end="[/quit or Ctrl-D ends the chat]",
    unknown="[unknown command {command}: use /regenerate, /clear, /help or /quit]",
    cleared="[new conversation]",
    nothing_to_regenerate="[there is no reply yet]",
    too_long="[this message is too long for the model; /clear may help]",
    dropped="[the {num_turns} oldest turns no longer fit and are not sent to the model]",
    stopped="[stopped]",
    failed="[{error}]",
)

JAPANESE = Words(
    welcome=(
        "{model} と会話します。\n"
        "  /regenerate  直前のメッセージにもう一度答えさせる\n"
        "  /clear       新しい会話を始める\n"
        "  /help        この説明\n"
        "  /quit        終了(Ctrl-D も同じ)。Ctrl-C は返答を止める"
    ),
    how_to_end="[終了は /quit か Ctrl-D]",
    unknown="[{command} というコマンドはありません。/regenerate、/clear、/help、/quit が使えます]",
    cleared="[新しい会話を始めます]",
    nothing_to_regenerate="[まだ返答がありません]",
    too_long="[このメッセージはモデルには長すぎます。/clear で減ることがあります]",
    dropped="[古い {num_turns} 往復は長さに収まらないため、モデルには渡していません]",
    stopped="[停止しました]",
    failed="[{error}]",
)


def words_of_locale() -> Words:
    """Return the texts for the locale: the first of LC_ALL, LC_MESSAGES and LANG that is set."""
    names = (os.environ.get(variable) for variable in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return JAPANESE if (next(filter(None, names), "")).startswith("ja") else ENGLISH
