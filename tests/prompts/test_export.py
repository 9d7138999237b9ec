"""Export of a conversation as JSON and Markdown."""

from __future__ import annotations

from flask_fakes import PlainPrompt

from chatstream_flask import AbstractChatPrompt
from chatstream_flask.conversation import Conversation
from chatstream_flask.prompts.export import to_markdown, to_messages


class WithExample(PlainPrompt):
    def build_initial_prompt(self, chat_prompt: AbstractChatPrompt) -> None:
        chat_prompt.add_requester_msg("an example")
        chat_prompt.add_responder_msg("of the application")


def conversation() -> AbstractChatPrompt:
    prompt = Conversation.begin(WithExample).prompt
    prompt.add_requester_msg("# Is this\n\n```a heading?")
    prompt.add_responder_msg(None)
    prompt.set_responder_last_msg("No, it", is_interrupted=True)
    prompt.set_responder_last_msg_id("7f")
    return prompt


def test_messages_are_the_visitors_own_turns() -> None:
    assert to_messages(conversation()) == [
        {
            "role": "user",
            "content": "# Is this\n\n```a heading?",
            "message_id": None,
            "is_interrupted": False,
        },
        {"role": "assistant", "content": "No, it", "message_id": "7f", "is_interrupted": True},
    ]


def test_markdown_keeps_messages_apart_whatever_stands_in_them() -> None:
    assert to_markdown(conversation(), "On\nheadings") == (
        "# On headings\n"
        "\n**User**\n\n> # Is this\n>\n> ```a heading?\n"
        "\n**Assistant** (interrupted)\n\n> No, it\n"
    )


def test_reasoning_is_exported_apart_from_its_answer() -> None:
    prompt = conversation()
    prompt.set_responder_last_msg("No.", reasoning="Is it?\n\nNo.", reasoning_sec=1.0)
    assert to_messages(prompt)[-1] == {
        "role": "assistant",
        "content": "No.",
        "message_id": "7f",
        "is_interrupted": False,
        "reasoning": "Is it?\n\nNo.",
    }
    assert to_markdown(prompt).endswith("\n**Reasoning**\n\n> Is it?\n>\n> No.\n\n**Assistant**\n\n> No.\n")


def test_nothing_said_is_nothing() -> None:
    prompt = Conversation.begin(WithExample).prompt
    assert to_messages(prompt) == []
    assert to_markdown(prompt) == ""
