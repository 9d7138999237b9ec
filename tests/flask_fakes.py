"""A Flask app with a ChatStream whose model follows a script of the test."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fakes import EOS_ID, TIMEOUT, CharDecoder
from flask import Flask, Request, Response, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from chatstream_flask import AbstractChatPrompt, ChatStream
from chatstream_flask.chat.app_state import AppState, state_of
from chatstream_flask.chat.shared_prefix import ChatSharedPrefix
from chatstream_flask.config import ContextPolicy, SamplingParams
from chatstream_flask.conversation import ConversationStore, Lease
from chatstream_flask.conversation.local_leases import LocalLease, LocalLeases
from chatstream_flask.engine.detokenizer import TextDecoder
from chatstream_flask.engine.reply_text import TokenLogprob
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.runner import NewIds, Runner
from chatstream_flask.engine.sequence import Chunk, Matcher, Sequence
from chatstream_flask.errors import BadRequest, StoreUnavailable
from chatstream_flask.model_source import ModelSource
from chatstream_flask.prompts import ChatContent
from chatstream_flask.prompts.fit import FittedPrompt, fit_to_context
from chatstream_flask.prompts.message_forms import text_of
from chatstream_flask.reply_format.family import ReplyFormat

SSE = {"Accept": "text/event-stream"}
FAIL = "\x01"  # in a scripted reply: the step fails here


class PlainPrompt(AbstractChatPrompt):
    def render(self, contents: list[ChatContent]) -> str:
        return "".join(f"{'U' if c.is_requester else 'A'}:{c.message or ''}|" for c in contents)[:-1]


class CharTokenizer:
    def encode(self, text: str, **options: Any) -> list[int]:
        return [ord(char) for char in text]


class ScriptedRunner:
    """Generates `reply(prompt)`, one character per token; while held, it makes one step for each `allow`."""

    eos_ids = frozenset({EOS_ID})
    keeps_prefixes = True

    def __init__(self, reply: Callable[[str], str] = lambda prompt: "ok", *, is_held: bool = False) -> None:
        self.reply = reply
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self.shown: set[bool] = set()  # whether special tokens were wanted in the text
        self.is_held = is_held
        self._steps = threading.Semaphore(0)

    def allow(self, num_steps: int = 1) -> None:
        self._steps.release(num_steps)

    def release(self) -> None:
        self.is_held = False

    def open(self) -> None: ...

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        ended = [chunk.sequence.request for chunk in chunks if chunk.is_last]
        self.prompts += ["".join(map(chr, request.prompt_ids)) for request in ended]
        self.params += [request.params for request in ended]
        return lambda: [[] for _ in chunks]

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if self.is_held and not self._steps.acquire(timeout=0.005):
            return [[] for _ in sequences]
        return [self._new_ids(sequence) for sequence in sequences]

    def _new_ids(self, sequence: Sequence) -> list[int]:
        token_id = self._next_id(sequence)
        if sequence.params.num_logprobs is not None:
            sequence.logprobs.append(TokenLogprob(token_id, 0.0, ()))
        return [token_id]

    def _next_id(self, sequence: Sequence) -> int:
        text = self.reply("".join(map(chr, sequence.request.prompt_ids)))
        num_told = len(sequence.token_ids) - sequence.num_prompt
        if num_told >= len(text):
            return EOS_ID
        if text[num_told] == FAIL:
            raise RuntimeError("the script says so")
        return ord(text[num_told])

    def copy_slot(self, source: int, target: int, length: int) -> None: ...

    def share_cores(self, num_busy: int) -> None: ...

    def swap_slots(self, one: int, other: int, length: int) -> None: ...

    def forget(self, sequence: Sequence) -> None: ...

    def text_decoder(self, request: GenerationRequest) -> TextDecoder:
        self.shown.add(request.shows_special_tokens)
        return CharDecoder()

    def matcher(self, grammar: str) -> Matcher:
        return ScriptMatcher()

    def close(self) -> None: ...


class ScriptMatcher:
    """Accepts any text."""

    num_bytes = 4

    def accept(self, token_id: int) -> bool:
        return False

    def write_mask(self, address: int, num_bytes: int) -> bool:
        raise NotImplementedError("for runners with a model")


class ScriptedSource:
    """Each character is a token; messages become "U:..|A:..|", tools their names."""

    num_devices = 1
    prefill_chunk_len = 256
    model_name = "scripted"
    tokenizer: Any = None
    reply_format = ReplyFormat()

    def __init__(self, runner: Runner, context_len: int) -> None:
        self.runner = runner
        self.context_len = context_len

    def best_num_threads(self, num_sequences: int) -> int:
        return 1

    def upstreams(self) -> tuple[()]:
        return ()

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        return self.runner

    def fit(self, prompt: AbstractChatPrompt, max_tokens: int, policy: ContextPolicy) -> FittedPrompt:
        return fit_to_context(prompt, CharTokenizer(), max_tokens, policy=policy)

    def text_of(self, prompt: AbstractChatPrompt) -> str:
        return prompt.create_prompt()

    def stop_ids(self, stop_strings: Iterable[str]) -> frozenset[int]:
        return frozenset()

    def check(self, params: SamplingParams) -> None: ...

    def encode_messages(
        self,
        messages: Iterable[dict[str, Any]],
        tools: Iterable[dict[str, Any]],
        template_kwargs: Mapping[str, Any],
    ) -> list[int]:
        names = [tool["function"]["name"] for tool in tools]
        lines = [f"T:{','.join(names)}"] if names else []
        lines += [f"{m['role'][0].upper()}:{text_of(m)}" for m in messages]
        return self.encode_text("|".join(lines))

    def encode_text(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        return [ord(char) for char in text]

    def check_ids(self, token_ids: Iterable[int]) -> None:
        if max(token_ids) > sys.maxunicode:
            raise BadRequest("this is no character")

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join(map(chr, token_ids))

    def token_text(self, token_id: int) -> str:
        return chr(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        return chr(token_id).encode()


class BreakableStore:
    """A store that a test can break."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.leases = LocalLeases(self)
        self.can_load = True
        self.can_save = True

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        if not self.can_load:
            raise StoreUnavailable("the store is down")
        text = self.data.get(conversation_id)
        return None if text is None else dict(json.loads(text))

    def __repr__(self) -> str:
        return repr(self.leases)

    def hold(self, conversation_id: str) -> Lease:
        return self.leases.hold(conversation_id)

    def purge(self) -> int:
        return 0

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        return self.load(lease.conversation_id)

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        self.save(lease.conversation_id, record)

    def save(self, conversation_id: str, data: dict[str, Any]) -> None:
        if not self.can_save:
            raise StoreUnavailable("the store is down")
        self.data[conversation_id] = json.dumps(data)

    def delete(self, conversation_id: str) -> None:
        if not self.can_save:
            raise StoreUnavailable("the store is down")
        self.leases.revoke(conversation_id)
        self.data.pop(conversation_id, None)


@dataclass
class Chat:
    app: Flask
    chat_stream: ChatStream
    runner: ScriptedRunner
    words: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)  # given to the callback
    histories: list[list[str | None]] = field(default_factory=list)  # as the callback saw them

    @property
    def state(self) -> AppState:
        state = state_of(self.app, self.chat_stream)
        assert state is not None
        return state

    def client(self) -> FlaskClient:
        return self.app.test_client()

    def on_end(self, request: Request, message: str) -> None:
        self.histories.append(messages(self.chat_stream.get_chat_prompt(request)))
        self.words.put(message)

    def word(self) -> str:
        return self.words.get(timeout=TIMEOUT)

    def history(self, client: FlaskClient) -> list[str | None]:
        response = client.get("/history")
        assert response.status_code == 200, response.text
        return list(response.get_json())

    def check_idle(self) -> None:
        self.chat_stream.engine.check_idle()
        assert "[0 held]" in repr(self.state.store)


def cookie_name(client: FlaskClient) -> str:
    """Return the name of the session cookie of a client's app."""
    name: str = client.application.config["SESSION_COOKIE_NAME"]
    return name


def messages(prompt: AbstractChatPrompt) -> list[str | None]:
    """Return the texts of a conversation; an interrupted reply ends with "~"."""
    return [f"{c.message}~" if c.is_interrupted else c.message for c in prompt.get_contents()]


def add_routes(app: Flask, chat: Chat) -> None:
    @app.post("/chat_stream")
    def chat_view() -> Response:
        return chat.chat_stream.handle_chat_stream_request(request, callback=chat.on_end)

    @app.post("/clear_context")
    def clear_view() -> dict[str, Any]:
        return chat.chat_stream.handle_clear_context_request(request)

    @app.get("/history")
    def history_view() -> list[str | None]:
        return messages(chat.chat_stream.get_chat_prompt(request))


def make_chat(
    store_dir: Path,
    runner: ScriptedRunner | None = None,
    config: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Chat:
    """Return a chat whose app is not set up, so that a test may add sessions first."""
    app = Flask("host", instance_path=str(store_dir))
    app.config.from_mapping(TESTING=True, CHATSTREAM_STORE_DIR=str(store_dir), CHATSTREAM_COOKIE_SECURE=False)
    app.config.from_mapping(config or {})
    runner = runner or ScriptedRunner()
    context_len = kwargs.setdefault("context_len", 1024)
    kwargs.setdefault("chat_prompt_clazz", PlainPrompt)
    chat_stream = ChatStream(use_mock_response=True, **kwargs)
    set_source(chat_stream, ScriptedSource(runner, context_len))
    return Chat(app, chat_stream, runner)


def set_source(chat_stream: ChatStream, source: ModelSource) -> None:
    chat_stream.source = source
    admission = chat_stream._admission
    assert isinstance(admission.shared_prefix, ChatSharedPrefix)
    shared_prefix = ChatSharedPrefix(source, admission.shared_prefix.chat_prompt_clazz)
    chat_stream._admission = replace(admission, source=source, shared_prefix=shared_prefix)


@contextmanager
def stopping(chat: Chat) -> Iterator[Chat]:
    """Close the chat at the end, and check that nothing is held."""
    try:
        yield chat
    finally:
        chat.runner.release()
        chat.chat_stream.engine.stop()
    chat.check_idle()


@contextmanager
def running_chat(
    store_dir: Path,
    runner: ScriptedRunner | None = None,
    config: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Iterator[Chat]:
    chat = make_chat(store_dir, runner, config, **kwargs)
    with stopping(chat):
        chat.chat_stream.init_app(chat.app)
        add_routes(chat.app, chat)
        yield chat


def say(client: FlaskClient, user_input: str | None = None, **body: Any) -> TestResponse:
    """Send a message; of the event stream only the first chunk has been read."""
    if user_input is not None:
        body["user_input"] = user_input
    return client.post("/chat_stream", json=body, headers=SSE)


def talk(client: FlaskClient, user_input: str | None = None, **body: Any) -> str:
    """Return the whole reply of a turn that succeeds."""
    events = list(read_events(say(client, user_input, **body)))
    assert events[-1].name == "done", events
    return "".join(event.data["text"] for event in events if event.name == "text")


@dataclass(frozen=True)
class Event:
    name: str  # "" for a comment
    id: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


def read_events(response: TestResponse) -> Iterator[Event]:
    """Yield the events of a response as they arrive."""
    assert response.status_code == 200, response.text
    assert response.content_type == "text/event-stream; charset=utf-8", response.text
    for chunk in response.iter_encoded():
        for block in chunk.decode().split("\n\n")[:-1]:
            yield parse_event(block)


def parse_event(block: str) -> Event:
    if block.startswith(":"):
        return Event("")
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert set(fields) == {"id", "event", "data"}
    return Event(fields["event"], int(fields["id"]), json.loads(fields["data"]))


def read_until(events: Iterator[Event], name: str) -> Event:
    return next(event for event in events if event.name == name)


def is_store(store: ConversationStore) -> bool:
    """Let mypy check that BreakableStore is a store."""
    return hasattr(store, "load")


assert is_store(BreakableStore())
