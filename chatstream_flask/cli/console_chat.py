"""Chat in the terminal, with the engine and the prompts of a server but without HTTP."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import click

from ..config import ContextPolicy
from ..conversation import Conversation
from ..conversation.memory_store import MemoryStore
from ..conversation.turn import Turn
from ..engine.outcome import FinishReason, Outcome
from ..engine.reasoning import Piece
from ..engine.request import GenerationRequest
from ..errors import ChatStreamError, PromptTooLong
from ..extension import ChatStream
from ..model_source.reasoning import fit_prompt, reasoning_of
from ..prompts import AbstractChatPrompt
from ..prompts.replacer import Replacer
from .console_words import Words

CONVERSATION = "console"
POLL_SEC = 0.1
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # with which a reply could take over the terminal


class ConsoleChat:
    """One conversation in the terminal, kept in memory.

    If stdin is not a terminal, each of its lines is a message. Only replies go to stdout.
    """

    def __init__(self, chat_stream: ChatStream, words: Words) -> None:
        self._chat_stream = chat_stream
        self._words = words
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._store = MemoryStore()
        self.num_failed = 0  # replies that failed

    def run(self) -> None:
        """Read messages and commands, and print replies, until the input ends."""
        if self._is_terminal:
            # Shells start background programs with SIGINT ignored; here Ctrl-C must stop a reply.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _enable_line_editing()
            self._help()
        while (line := self._read()) not in (None, "/quit"):
            assert line is not None
            if line in self._commands:
                self._commands[line](self)
            elif line.startswith("/"):
                self._say(self._words.unknown.format(command=line.split()[0]))
            elif line:
                self._reply(lambda turn, line=line: turn.ask(line))  # type: ignore[misc]

    # -- commands ------------------------------------------------------------------------------------

    def _help(self) -> None:
        self._say(self._words.welcome.format(model=self._chat_stream.source.model_name))

    def _clear(self) -> None:
        self._store.delete(CONVERSATION)
        self._say(self._words.cleared)

    def _regenerate(self) -> None:
        if self._conversation().prompt.has_turn_to_regenerate:
            self._reply(Turn.regenerate)
        else:
            self._say(self._words.nothing_to_regenerate)

    _commands: dict[str, Callable[[ConsoleChat], None]] = {  # noqa: RUF012
        "/help": _help,
        "/clear": _clear,
        "/regenerate": _regenerate,
    }

    # -- a turn --------------------------------------------------------------------------------------

    def _reply(self, begin: Callable[[Turn], None]) -> None:
        """Generate, print and store a reply; the conversation does not change if that fails."""
        turn = Turn(self._conversation(), self._store.hold(CONVERSATION))
        try:
            begin(turn)
            generation = self._submit(turn.prompt)
            outcome = self._print(generation)
            if outcome.failure is not None and outcome.finish_reason is not FinishReason.CANCELLED:
                self._fail(self._words.failed.format(error=outcome.failure))
            is_error = outcome.finish_reason is FinishReason.ERROR
            if outcome.is_success or (generation.num_chars and not is_error):
                turn.save(
                    generation.text,
                    is_interrupted=not outcome.is_success,
                    reasoning=generation.reasoning_text or None,
                    reasoning_sec=outcome.reasoning_sec,
                )
        except PromptTooLong:
            self._fail(self._words.too_long)
        except ChatStreamError as error:
            self._fail(self._words.failed.format(error=error))
        finally:
            turn.close()

    def _conversation(self) -> Conversation:
        return Conversation.from_record(self._store.load(CONVERSATION), self._chat_stream.chat_prompt_clazz)

    def _submit(self, prompt: AbstractChatPrompt) -> GenerationRequest:
        engine, source = self._chat_stream.engine, self._chat_stream.source
        defaults, template_params = self._chat_stream.params, self._chat_stream.template_params
        prompt.template_kwargs = template_params.to_kwargs()
        if template_params.is_thinking_off:
            defaults = replace(defaults, max_reasoning_tokens=0)
        params = replace(defaults, stop=(*defaults.stop, *prompt.get_final_stop_strs()))
        fitted = fit_prompt(source, prompt, params, ContextPolicy.DROP_OLDEST_TURNS)
        if fitted.num_dropped_turns:
            self._say(self._words.dropped.format(num_turns=fitted.num_dropped_turns))
        rules = prompt.get_replacement_when_output()
        generation = GenerationRequest(
            fitted.token_ids,
            params,
            stop_ids=source.stop_ids(params.stop),
            text_filter=Replacer(rules) if rules else None,
            reasoning=reasoning_of(source, fitted.token_ids, params),
            kept_tokens=source.reply_format.reasoning_tokens,
            cache_owner=CONVERSATION,
        )
        engine.submit(generation, engine.reserve())
        return generation

    def _print(self, generation: GenerationRequest) -> Outcome:
        """Print the reply while it is generated; Ctrl-C cancels it."""
        offset, outcome, was_reasoning = 0, None, False
        with _interrupt_as_event() as interrupt:
            while outcome is None:
                if interrupt.is_set():
                    self._chat_stream.engine.cancel(generation)
                pieces, outcome = generation.read(offset, POLL_SEC)
                for piece in pieces:
                    self._print_piece(piece, was_reasoning)
                    was_reasoning = piece.is_reasoning
                    offset += len(piece.text)
        click.echo()
        if interrupt.is_set():
            self._say(self._words.stopped)
        return outcome

    def _print_piece(self, piece: Piece, was_reasoning: bool) -> None:
        """Print a piece of the answer, or dimmed one of the reasoning, which only a terminal shows."""
        text = CONTROL.sub("", piece.text) if self._is_terminal else piece.text
        if piece.is_reasoning:
            click.secho(text if self._is_terminal else "", nl=False, err=True, dim=True)
            return
        if was_reasoning and self._is_terminal:
            click.echo("\n", err=True)
        click.echo(text, nl=False)

    # -- the terminal --------------------------------------------------------------------------------

    def _read(self) -> str | None:
        """Return the next line without the white space around it; None at the end of the input."""
        if not self._is_terminal:
            line = sys.stdin.readline()
            return line.strip() if line else None
        try:
            return input("> ").strip()
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()
            self._say(self._words.how_to_end)
            return ""

    def _fail(self, sentence: str) -> None:
        self.num_failed += 1
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        click.secho(sentence, err=True, dim=True)


def _enable_line_editing() -> None:
    """Let `input` edit lines and keep a history, if Python has readline."""
    with suppress(ImportError):
        import readline

        for name, value in {"input-meta": "on", "output-meta": "on", "convert-meta": "off"}.items():
            readline.parse_and_bind(f"set {name} {value}")  # for Japanese if its locale is not installed


@contextmanager
def _interrupt_as_event() -> Iterator[threading.Event]:
    """Make SIGINT set the event instead of raising KeyboardInterrupt."""
    event = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
