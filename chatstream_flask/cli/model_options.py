"""The options that choose a model: the same for each command that needs one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..demo_model import PATH as DEMO_MODEL
from ..extension import ChatStream
from ..inference.load_model import load_model

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = [
    click.option("--model", metavar="PATH_OR_HUB_ID", help="A Hugging Face model; else the demo model."),
    click.option(
        "--device",
        metavar="DEVICE[,DEVICE...]",
        help='"cpu", "cuda", "cuda:0" or "mps"; the best there is if left out. '
        "Several, separated by commas, have a copy of the model each.",
    ),
    click.option("--max-new-tokens", default=256, show_default=True, help="The most tokens of a reply."),
    click.option("--context-len", default=1024, show_default=True, help="Tokens of prompt and reply."),
    click.option("--temperature", default=1.0, show_default=True, help="0 is greedy."),
    click.option(
        "--prompt-lookup-num-tokens",
        default=0,
        show_default=True,
        help="Speculation: the most tokens proposed in a step of a greedy reply that repeats; 0 is off.",
    ),
    click.option("--mock", type=click.Choice(["round", "long", "echo"]), help="Fixed phrases, no model."),
    click.option("--mock-seconds-per-token", default=0.1, show_default=True),
]


def model_options(command: Command) -> Command:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def named_model(model: str | None, mock: str | None, **options: Any) -> str:
    """Return the name of the model that the options choose."""
    return f"mock ({mock})" if mock else model or str(DEMO_MODEL)


def make_chat_stream(
    model: str | None,
    device: str | None,
    mock: str | None,
    mock_seconds_per_token: float,
    **options: Any,
) -> ChatStream:
    """:param options: further arguments of ChatStream"""
    if mock:
        params = {"type": mock, "time_per_token_sec": mock_seconds_per_token}
        return ChatStream(use_mock_response=True, mock_params=params, **options)
    name = named_model(model, mock)
    first, *others = (device or "").split(",")
    click.echo(f"Loading {name} ...", err=True)
    began = time.monotonic()
    try:
        loaded, tokenizer, first = load_model(name, first or None)
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(f"{name} could not be loaded: {error}") from error
    devices = [first, *others]
    click.echo(f"Loaded in {time.monotonic() - began:.1f} s, for {', '.join(devices)}", err=True)
    return ChatStream(model=loaded, tokenizer=tokenizer, device=devices, **options)
