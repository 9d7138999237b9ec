"""Options that choose a model, shared by the commands that need one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

from ..config import Dtype, Weights
from ..demo_model import PATH as DEMO_MODEL
from ..extension import ChatStream
from ..prompts.template_params import EFFORTS

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = [
    click.option(
        "--model",
        metavar="NAME",
        help="Folder or hub id of a model or an adapter, a GGUF file, or smollm2. [default: the demo model]",
    ),
    click.option(
        "--engine",
        envvar="CHATSTREAM_ENGINE_URLS",
        show_envvar=True,
        metavar="URL[,URL...]",
        help="Engines that have the model, in place of this process: vLLM, SGLang, llama.cpp's server or "
        "servers of this package; or file:PATH of a file with their URLs. Their key is in "
        "CHATSTREAM_ENGINE_API_KEY.",
    ),
    click.option(
        "--tokenizer", metavar="NAME", help="With --engine: folder or hub id of the model's tokenizer."
    ),
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option(
        "--dtype",
        type=click.Choice([dtype.value for dtype in Dtype]),
        default=Dtype.AUTO.value,
        show_default=True,
        help="Data type of the weights; auto: as saved, but float32 as bfloat16 where that is faster.",
    ),
    click.option(
        "--weights",
        type=click.Choice([weights.value for weights in Weights]),
        default=Weights.AUTO.value,
        show_default=True,
        help="Round the matrices to 8 or 4 bits, on CPU; auto: as --dtype says.",
    ),
    click.option(
        "--chat-template",
        type=click.File(encoding="utf-8"),
        metavar="FILE",
        help="Jinja template that writes the prompts. [default: the model's own]",
    ),
    click.option("--model-name", help="Name for clients. [default: the model's folder or hub id]"),
    click.option(
        "--device",
        metavar="DEVICE[,DEVICE...]",
        help='"cpu", "cuda", "cuda:0" or "mps"; each of several devices gets a copy of the model. '
        "[default: the fastest available]",
    ),
    click.option(
        "--max-new-tokens",
        type=int,
        help="Most tokens of a reply. [default: the model's, or half of --context-len]",
    ),
    click.option(
        "--max-reasoning-tokens",
        type=int,
        help="Most tokens that a model reasons before it answers. [default: as the context has room]",
    ),
    click.option(
        "--thinking/--no-thinking",
        "enable_thinking",
        default=None,
        help="Whether a model reasons before it answers. [default: as its chat template says]",
    ),
    click.option(
        "--reasoning-effort",
        type=click.Choice(EFFORTS),
        help="How much it reasons, for chat templates that know it.",
    ),
    click.option(
        "--context-len",
        type=int,
        help="Most tokens of prompt and reply together. [default: what model and memory allow]",
    ),
    *(
        click.option(name, type=kind, help=f"{text} [default: the model's, or {default}]")
        for name, kind, text, default in (
            ("--temperature", float, "Sampling temperature; 0 is greedy decoding.", 1.0),
            ("--top-k", int, "Sample from this many most likely tokens; 0: from all.", 50),
            ("--top-p", float, "Sample from the most likely tokens with this total probability.", 1.0),
            ("--min-p", float, "Leave out tokens below this fraction of the highest probability.", 0.0),
            ("--repetition-penalty", float, "Penalty for tokens that occurred before; 1: none.", "none"),
        )
    ),
    click.option(
        "--prompt-lookup-num-tokens",
        default=0,
        show_default=True,
        help="Speculative decoding: most draft tokens per step of a greedy reply; 0 turns it off.",
    ),
    click.option(
        "--mock",
        type=click.Choice(["round", "long", "echo", "reasoning"]),
        help="Reply with fixed phrases, without a model.",
    ),
    click.option(
        "--mock-seconds-per-token", default=0.1, show_default=True, help="Speed of the mock's replies."
    ),
]
FILES_OPTIONS = ("dtype", "weights", "revision", "chat_template")  # options that have no meaning for the mock


def model_options(command: Command) -> Command:
    """Add the options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def named_model(model: str | None, mock: str | None, **options: Any) -> str:
    """Return the name of the model that the options choose."""
    if options.get("engine"):
        return f"of {options['engine']}"
    return f"mock ({mock})" if mock else model or str(DEMO_MODEL)


def make_chat_stream(
    model: str | None,
    device: str | None,
    mock: str | None,
    mock_seconds_per_token: float,
    chat_template: IO[str] | None,
    engine: str | None,
    tokenizer: str | None,
    **options: Any,
) -> ChatStream:
    """Return the ChatStream that the options choose; loads the model.

    :param options: further arguments of `ChatStream.from_pretrained`
    :raises ConfigError, UnsupportedModel: the model cannot be loaded or served
    :raises click.ClickException: torch or transformers is not installed
    """
    _check_engine(engine, tokenizer, is_local=bool(model or mock or device or options.get("revision")))
    if mock:
        params = {"type": mock, "time_per_token_sec": mock_seconds_per_token}
        given = {k: v for k, v in options.items() if v is not None and k not in FILES_OPTIONS}
        return ChatStream(use_mock_response=True, mock_params=params, **given)
    name = tokenizer or named_model(model, mock)
    options["chat_template"] = None if chat_template is None else chat_template.read()
    click.echo(f"Loading {name} ...", err=True)
    began = time.monotonic()
    try:
        chat_stream = ChatStream.from_pretrained(
            name, device=None if device is None else device.split(","), engine=engine, **options
        )
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error}: a model in this process needs torch and transformers; --mock needs neither"
        ) from error
    config = chat_stream.engine.config
    click.echo(
        f"Loaded in {time.monotonic() - began:.1f} s: context of {config.context_len} tokens, "
        f"replies of up to {chat_stream.params.max_new_tokens}",
        err=True,
    )
    return chat_stream


def _check_engine(engine: str | None, tokenizer: str | None, *, is_local: bool) -> None:
    if engine and is_local:
        raise click.UsageError("--engine has the model: leave out --model, --mock, --device and --revision")
    if engine and not tokenizer:
        raise click.UsageError("--engine needs --tokenizer, the folder or hub id of its model's tokenizer")
    if tokenizer and not engine:
        raise click.UsageError("--tokenizer is only for --engine: a model in this process has its own")
