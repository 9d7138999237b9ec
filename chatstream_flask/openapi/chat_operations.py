"""The chat API and the chat page as OpenAPI describes them."""

from __future__ import annotations

from ..chat.chat_request import MAX_MESSAGE_ID_LEN
from ..conversation.conversation_index import MAX_LIMIT, MAX_OFFSET, MAX_SEARCH_LEN
from .chat_schemas import TITLE, USAGE, WORKER
from .operation import (
    COUNT,
    PROBLEMS,
    STRING,
    STRING_OR_NULL,
    Json,
    Operation,
    a_reference,
    an_answer,
    an_array,
    an_event,
    an_object,
)

CHAT, PAGE = "chat", "page"
CHOSEN: Json = {"name": "conversation_id", "in": "query", "schema": STRING} | {
    "description": "a conversation of the caller's list; without it, the session's first one"
}
ID: Json = {"type": "string", "minLength": 1, "maxLength": MAX_MESSAGE_ID_LEN}

EVENTS = an_event(
    "`queue`, `start`, `sources`, `step`, `reasoning`, `text`, `done` or `error`, each with JSON"
)
REPLY = an_answer(
    "The reply, in the format that `Accept` asks for. Unless refusals have a status, also "
    '`{"error": "too_many_requests"}`.',
    headers={"X-ChatStream-Last-Generated-Message-Id": STRING, "X-ChatStream-Truncated": STRING},
    events=EVENTS,
    lines=EVENTS,
    text=STRING | {"description": "the text of the answer"},
    json=an_object({"error": {"const": "too_many_requests"}}),
)


def _success(description: str, properties: Json) -> Json:
    return an_answer(
        description, json=an_object({"success": {"const": True}, "message": STRING, **properties})
    )


SHOWN_PARAMS = _success(
    "All of them, where each comes from, and which change how the model reasons.",
    {
        "generation_params": {"type": "object"},
        "origins": {"type": "object", "additionalProperties": STRING},
        "reasoning_settings": {"type": "array", "items": STRING},
    },
)

CHAT_OPERATIONS: dict[str, Operation] = {
    "chat": Operation(
        summary="Generate a reply and stream it",
        tag=CHAT,
        parameters=(CHOSEN,),
        body=a_reference("ChatRequest"),
        answers={"200": REPLY, **PROBLEMS},
    ),
    "resume": Operation(
        summary="Read on in a reply",
        tag=CHAT,
        answers={"200": REPLY, **PROBLEMS},
        path_parameters={"message_id": ID},
        parameters=(
            CHOSEN,
            {"name": "Last-Event-ID", "in": "header", "schema": COUNT}
            | {"description": "number of characters that the client has"},
            {"name": "offset", "in": "query", "schema": COUNT, "description": "the same, without the header"},
        ),
    ),
    "cancel": Operation(
        summary="Stop a reply; what it has said is kept",
        tag=CHAT,
        parameters=(CHOSEN,),
        path_parameters={"message_id": ID},
        answers={"204": an_answer("The reply ends."), **PROBLEMS},
    ),
    "answer_now": Operation(
        summary="End the reasoning of a reply, so that the answer begins",
        tag=CHAT,
        parameters=(CHOSEN,),
        path_parameters={"message_id": ID},
        answers={"204": an_answer("The answer begins."), **PROBLEMS},
    ),
    "answer_step": Operation(
        summary="Confirm or decline a function call for which a reply waits",
        tag=CHAT,
        parameters=(CHOSEN,),
        path_parameters={"message_id": ID, "step_id": ID},
        body=an_object({"confirm": {"type": "boolean"}}),
        answers={"204": an_answer("The reply goes on."), **PROBLEMS},
    ),
    "clear_context": Operation(
        summary="Delete the caller's conversation",
        tag=CHAT,
        parameters=(CHOSEN,),
        answers={"200": _success("It is deleted.", {}), **PROBLEMS},
    ),
    "get_conversation": Operation(
        summary="Return the caller's conversation",
        tag=CHAT,
        parameters=(CHOSEN,),
        answers={
            "200": an_answer("Messages and the running reply.", json=a_reference("Conversation")),
            **PROBLEMS,
        },
    ),
    "list_conversations": Operation(
        summary="Return the caller's conversations",
        tag=CHAT,
        answers={
            "200": an_answer(
                "Pinned ones first, then the most recently used; of a search those with the newest match.",
                json=an_object(
                    {
                        "conversations": an_array(a_reference("ConversationEntry")),
                        "has_more": {"type": "boolean"},
                    }
                ),
            ),
            **PROBLEMS,
        },
        parameters=(
            {"name": "search", "in": "query", "schema": {"type": "string", "maxLength": MAX_SEARCH_LEN}}
            | {"description": "words that are all in the title, or all in one turn"},
            {"name": "limit", "in": "query", "description": "greatest number; 100 without it"}
            | {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}},
            {"name": "offset", "in": "query", "description": "how many to leave out"}
            | {"schema": COUNT | {"maximum": MAX_OFFSET}},
        ),
    ),
    "create_conversation": Operation(
        summary="Begin a conversation, or import an exported one",
        tag=CHAT,
        body=a_reference("ExportedConversation"),
        answers={"201": an_answer("It is in the list.", json=a_reference("ConversationEntry")), **PROBLEMS},
    ),
    "change_conversation": Operation(
        summary="Rename or pin a conversation",
        tag=CHAT,
        body=an_object({"title": TITLE, "is_pinned": {"type": "boolean"}}, optional=("title", "is_pinned"))
        | {"minProperties": 1},
        answers={"200": an_answer("As it is now.", json=a_reference("ConversationEntry")), **PROBLEMS},
    ),
    "delete_conversation": Operation(
        summary="Delete a conversation; its running reply is cancelled and not kept",
        tag=CHAT,
        answers={"204": an_answer("It is deleted."), **PROBLEMS},
    ),
    "export_json": Operation(
        summary="Return a conversation as a file that can be imported",
        tag=CHAT,
        answers={"200": an_answer("Its messages.", json=a_reference("ExportedConversation")), **PROBLEMS},
    ),
    "export_markdown": Operation(
        summary="Return a conversation as a file to read",
        tag=CHAT,
        answers={"200": an_answer("Its messages.", markdown=STRING), **PROBLEMS},
    ),
    "get_prompt": Operation(
        summary="Return the conversation as the model reads it, percent-encoded",
        tag=CHAT,
        parameters=(CHOSEN,),
        answers={
            "200": _success("The prompt; null before the first message.", {"prompt": STRING_OR_NULL}),
            **PROBLEMS,
        },
    ),
    "get_generation_params": Operation(
        summary="Return the sampling parameters of the conversation",
        tag=CHAT,
        parameters=(CHOSEN,),
        answers={"200": SHOWN_PARAMS, **PROBLEMS},
    ),
    "set_generation_params": Operation(
        summary="Change some sampling parameters of the conversation; null resets all",
        tag=CHAT,
        parameters=(CHOSEN,),
        body={"oneOf": [a_reference("GenerationParams"), {"type": "null"}]},
        answers={"200": SHOWN_PARAMS, **PROBLEMS},
    ),
    "set_feedback": Operation(
        summary="Like or dislike a reply",
        tag=CHAT,
        parameters=(CHOSEN,),
        body=a_reference("Feedback"),
        answers={"200": _success("The app has it.", {"target_message_id": STRING}), **PROBLEMS},
    ),
    "get_load": Operation(
        summary="Return how many replies run and wait, and how many may",
        tag=CHAT,
        answers={"200": _success("Load and limits.", {"chatstream_workers": an_array(WORKER)}), **PROBLEMS},
    ),
    "get_resource_usage": Operation(
        summary="Return memory of the process and of CUDA devices, in GiB",
        tag=CHAT,
        answers={"200": _success("Memory.", {"memory_usage": an_array(USAGE)}), **PROBLEMS},
    ),
    "openapi": Operation(
        summary="Return this description",
        tag=CHAT,
        answers={"200": an_answer("An OpenAPI 3.1 document.", json={"type": "object"}), **PROBLEMS},
    ),
}
PAGE_OPERATIONS: dict[str, Operation] = {
    "index": Operation(
        summary="Return the chat page", tag=PAGE, answers={"200": an_answer("The page.", html=STRING)}
    ),
    "redirect": Operation(
        summary="Redirect to the chat page",
        tag=PAGE,
        answers={"308": an_answer("Its address ends in a slash.", headers={"Location": STRING})},
    ),
    "widget": Operation(
        summary="Return the script that puts the widget into a page of the host",
        tag=PAGE,
        answers={"200": an_answer("The script, a module.", script=STRING)},
    ),
    "file": Operation(
        summary="Return a file of the chat page or the widget",
        tag=PAGE,
        answers={"200": an_answer("The file.", any=STRING), "404": an_answer("There is no such file.")},
    ),
}
