"""The OpenAI-compatible API as OpenAPI describes it; its bodies are the types that check requests."""

from __future__ import annotations

from msgspec.json import schema_components

from ..openai_api.responses.output import CANCELLED, COMPLETED, FAILED, IN_PROGRESS, INCOMPLETE, QUEUED
from ..openai_api.responses.schema import ResponsesBody
from ..openai_api.schema import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from .operation import (
    COUNT,
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

TAG = "openai"
BODIES = (ChatBody, CompletionBody, TokenizeBody, DetokenizeBody, ResponsesBody)
KEY = "apiKey"

ERROR = an_object(
    {
        "error": {
            "type": "object",
            "properties": {
                "message": STRING,
                "type": STRING,
                "param": STRING_OR_NULL,
                "code": STRING_OR_NULL,
            },
            "required": ["message", "type", "param", "code"],
        }
    }
)
MODEL = an_object(
    {
        "id": STRING,
        "object": {"const": "model"},
        "created": COUNT,
        "owned_by": STRING,
        "max_model_len": COUNT,
    }
)
REFUSED: Json = {
    "4XX": an_answer("The request is refused.", json=a_reference("OpenAIError")),
    "5XX": an_answer("The server cannot answer now.", json=a_reference("OpenAIError")),
}
CHUNKS = an_event("a chunk as JSON; the last one is `[DONE]`")

EVENTS = an_event("from `response.created` to `response.completed`, each as JSON")


def _completion(kind: str, choice: Json) -> Json:
    return {
        "type": "object",
        "properties": {
            "id": STRING,
            "object": {"const": kind},
            "created": COUNT,
            "model": STRING,
            "choices": an_array({"type": "object", "properties": choice, "required": list(choice)}),
            "usage": {
                "type": "object",
                "properties": {
                    name: COUNT for name in ("prompt_tokens", "completion_tokens", "total_tokens")
                },
                "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
            },
        },
        "required": ["id", "object", "created", "model", "choices", "usage"],
    }


CHOICE: Json = {"index": COUNT, "finish_reason": STRING_OR_NULL, "logprobs": {"type": ["object", "null"]}}
CHAT_MESSAGE: Json = {
    "type": "object",
    "properties": {"role": {"const": "assistant"}, "content": STRING_OR_NULL},
    "required": ["role", "content"],
}

SCHEMAS: dict[str, Json] = {
    **schema_components(BODIES, ref_template="#/components/schemas/{name}")[1],
    "ChatCompletion": _completion("chat.completion", CHOICE | {"message": CHAT_MESSAGE}),
    "Completion": _completion("text_completion", CHOICE | {"text": STRING}),
    "Model": MODEL,
    "Response": {
        "type": "object",
        "properties": {
            "id": STRING,
            "object": {"const": "response"},
            "status": {"enum": [QUEUED, IN_PROGRESS, COMPLETED, INCOMPLETE, CANCELLED, FAILED]},
            "output": an_array({"type": "object"}),
        },
        "required": ["id", "object", "status", "output"],
    },
    "Tokens": an_object(
        {"count": COUNT, "max_model_len": COUNT, "tokens": an_array(COUNT), "token_strs": an_array(STRING)},
        optional=("token_strs",),
    ),
    "ServerHealth": an_object({"status": STRING}),
    "OpenAIError": ERROR,
}


def _body(kind: type) -> Json:
    return a_reference(kind.__name__)


def _health(summary: str) -> Operation:
    return Operation(
        summary=summary,
        tag=TAG,
        method="GET",
        answers={
            status: an_answer(description, json=a_reference("ServerHealth"))
            for status, description in {"200": "They are.", "503": "They are not."}.items()
        }
        | {"4XX": REFUSED["4XX"]},
    )


def _keyed(method: str, summary: str, answer: Json, body: Json | None = None) -> Operation:
    """Return an operation that needs an API key."""
    answers = {"200": answer, **REFUSED}
    return Operation(summary=summary, tag=TAG, method=method, body=body, security=(KEY,), answers=answers)


OPENAI_OPERATIONS: dict[str, Operation] = {
    "chat": _keyed(
        "POST",
        "Answer messages",
        an_answer("The answer.", json=a_reference("ChatCompletion"), events=CHUNKS),
        _body(ChatBody),
    ),
    "text": _keyed(
        "POST",
        "Continue a text",
        an_answer("The text.", json=a_reference("Completion"), events=CHUNKS),
        _body(CompletionBody),
    ),
    "create_response": _keyed(
        "POST",
        "Create a response",
        an_answer("The response.", json=a_reference("Response"), events=EVENTS),
        _body(ResponsesBody),
    ),
    "get_response": _keyed(
        "GET",
        "Return a stored response, or with ?stream=true its events after ?starting_after=N",
        an_answer("The response.", json=a_reference("Response"), events=EVENTS),
    ),
    "delete_response": _keyed(
        "DELETE",
        "Delete a stored response",
        an_answer(
            "It is deleted.",
            json=an_object({"id": STRING, "object": {"const": "response"}, "deleted": {"const": True}}),
        ),
    ),
    "cancel_response": _keyed(
        "POST", "End a response of the background", an_answer("It has ended.", json=a_reference("Response"))
    ),
    "list_input_items": _keyed(
        "GET",
        "List the input of a stored response",
        an_answer(
            "The items.",
            json=an_object(
                {
                    "object": {"const": "list"},
                    "data": an_array({"type": "object"}),
                    "first_id": STRING,
                    "last_id": STRING,
                    "has_more": {"const": False},
                }
            ),
        ),
    ),
    "list": _keyed(
        "GET",
        "List the names of the model",
        an_answer(
            "The names.",
            json=an_object({"object": {"const": "list"}, "data": an_array(a_reference("Model"))}),
        ),
    ),
    "get": _keyed("GET", "Describe a model", an_answer("The model.", json=a_reference("Model"))),
    "health": _health("Tell whether requests are accepted, as vLLM and llama.cpp do"),
    "ping": _health("Tell the same under another name"),
    "version": _keyed(
        "GET",
        "Tell the version of this package",
        an_answer("The version.", json=an_object({"version": STRING})),
    ),
    "tokenize": _keyed(
        "POST",
        "Return the tokens of a text, or of the prompt that messages make",
        an_answer("The tokens.", json=a_reference("Tokens")),
        {"anyOf": [_body(TokenizeBody), _body(ChatBody)]},
    ),
    "detokenize": _keyed(
        "POST",
        "Return the text of tokens",
        an_answer("The text, twice.", json=an_object({"prompt": STRING, "content": STRING})),
        _body(DetokenizeBody),
    ),
}
