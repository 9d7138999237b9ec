"""Options that choose a model, shared by the commands that need one."""

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
    click.option("--model", metavar="PATH_OR_HUB_ID", help="Hugging Face model. [default: the demo model]"),
    click.option(
        "--device",
        metavar="DEVICE[,DEVICE...]",
        help='"cpu", "cuda", "cuda:0" or "mps"; each of several devices gets a copy of the model. '
        "[default: the fastest available]",
    ),
    click.option("--max-new-tokens", default=256, show_default=True, help="Most tokens of a reply."),
    click.option(
        "--context-len", default=1024, show_default=True, help="Most tokens of prompt and reply together."
    ),
    click.option(
        "--temperature", default=1.0, show_default=True, help="Sampling temperature; 0 is greedy decoding."
    ),
    click.option(
        "--prompt-lookup-num-tokens",
        default=0,
        show_default=True,
        help="Speculative decoding: most draft tokens per step of a greedy reply; 0 turns it off.",
    ),
    click.option(
        "--mock",
        type=click.Choice(["round", "long", "echo"]),
        help="Reply with fixed phrases, without a model.",
    ),
    click.option(
        "--mock-seconds-per-token", default=0.1, show_default=True, help="Speed of the mock's replies."
    ),
]


def model_options(command: Command) -> Command:
    """Add the options to a command."""
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
    """Return the ChatStream that the options choose; loads the model.

    :param options: further arguments of ChatStream
    :raises click.ClickException: the model cannot be loaded
    """
    if mock:
        params = {"type": mock, "time_per_token_sec": mock_seconds_per_token}
        return ChatStream(use_mock_response=True, mock_params=params, **options)
    name = named_model(model, mock)
    first, *others = (device or "").split(",")
    click.echo(f"Loading {name} ...", err=True)
    began = time.monotonic()
    try:
        loaded, tokenizer, first = load_model(name, first or None)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error}: a model in this process needs torch and transformers; --mock needs neither"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(f"the model {name} could not be loaded: {error}") from error
    devices = [first, *others]
    click.echo(f"Loaded in {time.monotonic() - began:.1f} s on {', '.join(devices)}", err=True)
    return ChatStream(model=loaded, tokenizer=tokenizer, device=devices, **options)
