"""JSON schemas of the chat API: what its requests and answers hold."""

from __future__ import annotations

from ..chat.chat_request import MAX_MESSAGE_ID_LEN
from ..config import (
    MAX_REPETITION_PENALTY,
    MAX_STOP_STRING_LEN,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    MULTIPLICATIVE,
    SUBTRACTIVE,
)
from ..conversation.conversation_index import MAX_TITLE_LEN
from ..prompts.template_params import EFFORTS, MAX_KWARGS
from .operation import (
    COUNT,
    NUMBER_OR_NULL,
    PROBLEM,
    STRING,
    STRING_OR_NULL,
    Json,
    an_array,
    an_object,
)

SECONDS: Json = {"type": "number", "description": "seconds since 1970"}
STOP_STRING: Json = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
PENALTY: Json = {"minimum": -MAX_REPETITION_PENALTY, "maximum": MAX_REPETITION_PENALTY}

SESSION_PARAMS: Json = {
    "temperature": {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE},
    "top_k": {"type": ["integer", "null"], "minimum": 0},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "repetition_penalty": {"type": ["number", "null"]} | PENALTY,
    "repetition_penalty_method": {"enum": [MULTIPLICATIVE, SUBTRACTIVE]},
    "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**63 - 1},
    "max_new_tokens": {"type": "integer", "minimum": 1},
    "max_reasoning_tokens": {"type": ["integer", "null"], "minimum": 0},
    "enable_thinking": {"type": ["boolean", "null"]},
    "reasoning_effort": {"enum": [*EFFORTS, None]},
    "chat_template_kwargs": {
        "type": "object",
        "maxProperties": MAX_KWARGS,
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
}
REQUEST_PARAMS: Json = SESSION_PARAMS | {
    "stop": {"oneOf": [STOP_STRING, {"type": "array", "items": STOP_STRING, "maxItems": MAX_STOP_STRINGS}]}
}
CHAT_REQUEST = an_object(
    {
        "user_input": STRING | {"description": "the next message; needed unless `regenerate` is true"},
        "regenerate": {"type": "boolean", "description": "generate the last reply again"},
        "edited_message_id": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_MESSAGE_ID_LEN}
        | {"description": "the reply whose turn `user_input` replaces"},
        **REQUEST_PARAMS,
    },
    optional=("user_input", "regenerate", "edited_message_id", *REQUEST_PARAMS),
) | {
    "anyOf": [
        {"required": ["user_input"]},
        {"required": ["regenerate"], "properties": {"regenerate": {"const": True}}},
    ]
}
SOURCE = an_object({"title": STRING, "url": STRING}, optional=("url",))
STEP = an_object({"id": STRING, "name": STRING, "arguments": {}, "status": STRING, "result": STRING})
MESSAGE = an_object(
    {
        "role": STRING,
        "text": STRING,
        "message_id": STRING_OR_NULL,
        "is_interrupted": {"type": "boolean"},
        "reasoning": STRING,
        "reasoning_s": NUMBER_OR_NULL,
        "sources": an_array(SOURCE),
        "steps": an_array(STEP),
    },
    optional=("reasoning", "reasoning_s", "sources", "steps"),
)
ENTRY = an_object(
    {
        "id": STRING,
        "title": STRING,
        "is_pinned": {"type": "boolean"},
        "created_at": SECONDS,
        "updated_at": SECONDS,
    }
)
TITLE: Json = {"type": "string", "minLength": 1, "maxLength": MAX_TITLE_LEN}
EXPORTED_MESSAGE = an_object(
    {
        "role": {"enum": ["user", "assistant"]},
        "content": STRING,
        "reasoning": STRING,
        "message_id": STRING_OR_NULL,
        "is_interrupted": {"type": "boolean"},
        "sources": {"type": "array", "items": {"type": "object"}},
        "steps": {"type": "array", "items": {"type": "object"}},
    },
    optional=("reasoning", "message_id", "is_interrupted", "sources", "steps"),
)
RUNNING = an_object({"message_id": STRING, "user_input": STRING, "num_kept": COUNT})
WORKER = an_object(
    {
        "name": STRING,
        "processing": COUNT,
        "waiting": COUNT,
        "max_processing": COUNT,
        "max_waiting": COUNT,
        "free": COUNT,
        "eta_s": NUMBER_OR_NULL,
    }
)
MEMORY: Json = {"total_memory": {"type": "number"}, "used_memory": {"type": "number"}}
USAGE = an_object(
    {
        "name": STRING,
        "num_gpus": COUNT,
        "gpus": an_array(an_object({"index": COUNT, **MEMORY})),
        "cpu": an_object(MEMORY),
    }
)

SCHEMAS: dict[str, Json] = {
    "ChatRequest": CHAT_REQUEST,
    "GenerationParams": an_object(SESSION_PARAMS, optional=tuple(SESSION_PARAMS)),
    "Conversation": an_object(
        {
            "id": STRING_OR_NULL,
            "messages": an_array(MESSAGE),
            "running": {"oneOf": [RUNNING, {"type": "null"}]},
        }
    ),
    "ConversationEntry": ENTRY,
    "ExportedConversation": an_object(
        {"title": TITLE, "messages": an_array(EXPORTED_MESSAGE)}, optional=("title", "messages")
    ),
    "Feedback": an_object(
        {"message_id": STRING, "is_like": {"type": ["boolean", "null"]}, "form_data": {}},
        optional=("is_like", "form_data"),
    ),
    "Problem": PROBLEM,
}
