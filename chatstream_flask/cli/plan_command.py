"""`flask chatstream plan`: find the slots, threads and processes that a number of users needs."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from typing import Any

import click

from ..capacity.check import compare
from ..capacity.measure_profile import MOCK, Target, measure_profile, running_client
from ..capacity.picture import check_picture, draw
from ..capacity.plan import Goals, gib, make_plan, num_slots_that_fit
from ..capacity.profile import Profile
from ..capacity.report import check_text, plan_text, profile_text
from ..capacity.workload import Workload
from ..config import Dtype, Weights, check_int
from ..demo_model import PATH as DEMO_MODEL
from ..errors import ConfigError
from ..inference.model_size import memory_bytes, model_size
from .error_messages import errors_as_messages

LONGEST_REPLY = 4  # default of --max-new-tokens / --tokens
CHECK_REPLY_TOKENS = 48
CONTEXT_LEN = 1024  # for models whose config names no context length


@click.command()
@click.option("--dau", type=float, metavar="NUMBER", help="Users per day. Without it, only measure or check.")
@click.option("--turns", default=5.0, show_default=True, help="Mean turns per user and day.")
@click.option("--tokens", default=200.0, show_default=True, help="Mean tokens of a reply.")
@click.option("--message-tokens", default=40.0, show_default=True, help="Mean tokens of a user's message.")
@click.option("--system-tokens", default=0, show_default=True, help="Tokens of the system text.")
@click.option(
    "--think-sec", default=30.0, show_default=True, help="Mean seconds from a reply to the next turn."
)
@click.option(
    "--peak-share", default=0.1, show_default=True, help="Fraction of a day's turns in the busiest hour."
)
@click.option(
    "--spread", default=0.6, show_default=True, help="Standard deviation / mean of the lengths above."
)
@click.option(
    "--max-new-tokens",
    type=int,
    help=f"Most tokens of a reply. [default: {LONGEST_REPLY} times --tokens, at most half of --context-len]",
)
@click.option(
    "--context-len",
    type=int,
    help=f"Tokens of prompt and reply together. [default: the profile's; with --memory-only the model's; "
    f"else {CONTEXT_LEN}]",
)
@click.option(
    "--max-first-token-sec",
    default=3.0,
    show_default=True,
    help="Goal: seconds to the first token, for 95 % of the turns.",
)
@click.option(
    "--max-refused", default=0.01, show_default=True, help="Goal: highest fraction of refused turns."
)
@click.option(
    "--min-tokens-per-sec",
    default=5.0,
    show_default=True,
    help="Goal: tokens per second of a reply, for 95 % of the replies.",
)
@click.option("--slots", type=int, help="num_of_concurrent_executions. [default: the best]")
@click.option("--threads", type=int, help="num_of_generation_threads. [default: the better of 1 and 2]")
@click.option("--max-queue-size", type=int, help="Requests that may wait. [default: as many as slots]")
@click.option(
    "--memory-gib", type=float, help="Memory of one device. [default: the profile's, or this machine's]"
)
@click.option(
    "--model", metavar="NAME", help="Model to measure, as for `serve`, or `mock`. [default: the demo model]"
)
@click.option(
    "--device",
    help='"cpu", "cuda", "cuda:0" or "mps". [default: the fastest available; with --memory-only the CPU]',
)
@click.option(
    "--mock-seconds-per-token", default=0.02, show_default=True, help="Speed of the mock with --model mock."
)
@click.option("--measured-slots", default=16, show_default=True, help="Most replies at once while measuring.")
@click.option(
    "--profile", "profile_path", metavar="FILE", help="Use a saved profile instead of measuring the model."
)
@click.option("--save-profile", metavar="FILE", help="Save the measurements for --profile.")
@click.option("--picture", metavar="FILE", help="Draw the plan; the name must end in .svg, .png or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the check as JSON.")
@click.option(
    "--check", "is_check", is_flag=True, help="Compare predictions with a real server on this machine."
)
@click.option("--check-seconds", default=20.0, show_default=True, help="Duration of each load of --check.")
@click.option("--check-repeats", default=3, show_default=True, help="Repeats of each load of --check.")
@click.option(
    "--memory-only",
    is_flag=True,
    help="Only say how many slots fit, from the model's config, without loading its weights.",
)
@click.option(
    "--dtype",
    type=click.Choice([dtype.value for dtype in Dtype]),
    default=Dtype.AUTO.value,
    show_default=True,
    help="Data type of the weights; auto: as saved, but float32 as bfloat16 where that is faster.",
)
@click.option(
    "--weights",
    type=click.Choice([weights.value for weights in Weights]),
    default=Weights.AUTO.value,
    show_default=True,
    help="Round the matrices to 8 or 4 bits, on CPU; auto: as --dtype says.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the simulation.")
@errors_as_messages()
def plan(**options: Any) -> None:
    """Find the slots, threads and processes that a number of users needs.

    Measures the steps of a model on this machine, then simulates its queue and schedulers, and prints the
    waiting times that users will see.
    """
    if options["memory_only"]:
        _print_memory(options)
        return
    if not (options["dau"] or options["save_profile"] or options["is_check"]):
        raise click.UsageError("give one of --dau NUMBER, --save-profile FILE, --check or --memory-only")
    if options["is_check"] and options["dau"]:
        raise click.UsageError("--check uses loads of its own: leave --dau out")
    if options["picture"]:
        check_picture(options["picture"])
    profile, target = _profile(options)
    if options["save_profile"]:
        _save(profile, options["save_profile"])
    if options["is_check"]:
        _check(profile, target, options)
    elif options["dau"]:
        _plan(profile, options)


def _print_memory(options: dict[str, Any]) -> None:
    size = model_size(options["model"] or str(DEMO_MODEL), options["dtype"], options["weights"])
    context_len = options["context_len"] or size.context_len or CONTEXT_LEN
    num_bytes = (
        _bytes(options["memory_gib"]) if options["memory_gib"] else memory_bytes(options["device"] or "cpu")
    )
    fit = num_slots_that_fit(size.weights_bytes, size.kv_bytes_per_token, num_bytes, context_len)
    fitting = asdict(size) | {"memory_bytes": num_bytes, "context_len": context_len, "max_slots": fit}
    if options["as_json"]:
        click.echo(json.dumps(fitting))
        return
    click.echo(
        f"Weights of {gib(size.weights_bytes)}, {size.kv_bytes_per_token / 1024:.4g} KiB of keys and values "
        f"per token: {fit} slots of {context_len} tokens fit into {gib(num_bytes)}"
    )


def _profile(options: dict[str, Any]) -> tuple[Profile, Target]:
    known = Profile.load(options["profile_path"]) if options["profile_path"] else None
    if options["threads"] is not None:
        check_int("threads", options["threads"], 1, 64)
    check_int("measured slots", options["measured_slots"], 1, 256)
    target = Target(
        model=options["model"] or (known.model if known else str(DEMO_MODEL)),
        device=options["device"] or (known.device if known and known.model != MOCK else None),
        context_len=options["context_len"] or (known.context_len if known else CONTEXT_LEN),
        max_slots=options["measured_slots"],
        thread_counts=_thread_counts(options),
        dtype=options["dtype"],
        weights=options["weights"],
        mock_sec_per_token=(known and known.mock_sec_per_token) or options["mock_seconds_per_token"],
    )
    profile = known or measure_profile(target, _say)
    click.echo(profile_text(profile), err=options["as_json"])
    return profile, target


def _thread_counts(options: dict[str, Any]) -> tuple[int, ...]:
    if options["threads"]:
        return (options["threads"],)
    if options["is_check"] and not options["save_profile"]:
        return ()
    return (1, 2) if (os.cpu_count() or 1) > 1 else (1,)


def _plan(profile: Profile, options: dict[str, Any]) -> None:
    context_len = options["context_len"] or profile.context_len
    max_new_tokens = options["max_new_tokens"]
    if max_new_tokens is None:
        max_new_tokens = min(round(LONGEST_REPLY * options["tokens"]), context_len // 2)
    workload = Workload(
        daily_users=options["dau"],
        turns=options["turns"],
        reply_tokens=options["tokens"],
        message_tokens=options["message_tokens"],
        system_tokens=options["system_tokens"],
        think_sec=options["think_sec"],
        peak_share=options["peak_share"],
        spread=options["spread"],
        context_len=context_len,
        max_new_tokens=max_new_tokens,
    )
    goals = Goals(
        max_first_token_sec=options["max_first_token_sec"],
        max_refused_share=options["max_refused"],
        min_tokens_per_sec=options["min_tokens_per_sec"],
    )
    memory_gib = options["memory_gib"]
    made = make_plan(
        profile,
        workload,
        goals,
        memory_bytes=None if memory_gib is None else _bytes(memory_gib),
        num_slots=options["slots"],
        num_threads=options["threads"],
        max_queue_size=options["max_queue_size"],
        seed=options["seed"],
        say=_say,
    )
    click.echo(json.dumps(made.to_dict()) if options["as_json"] else "\n" + plan_text(made))
    if options["picture"]:
        draw(made, options["picture"])


def _check(profile: Profile, target: Target, options: dict[str, Any]) -> None:
    num_threads = options["threads"] or profile.thread_counts[0]
    config = target.config(num_threads, options["slots"])
    with running_client(target, config, LONGEST_REPLY * CHECK_REPLY_TOKENS) as client:
        comparisons = compare(
            profile,
            client,
            config,
            reply_tokens=CHECK_REPLY_TOKENS,
            num_sec=options["check_seconds"],
            num_repeats=options["check_repeats"],
            say=_say,
        )
    rows = [asdict(it) | {"error": it.error} for it in comparisons]
    click.echo(json.dumps(rows) if options["as_json"] else "\n" + check_text(comparisons))
    if not all(it.is_within for it in comparisons):
        raise click.exceptions.Exit(1)


def _bytes(gib: float) -> int:
    if not 0.001 <= gib <= 1_000_000 or math.isnan(gib):
        raise ConfigError(f"--memory-gib must be between 0.001 and 1000000, not {gib}")
    return int(gib * 2**30)


def _save(profile: Profile, path: str) -> None:
    try:
        profile.save(path)
    except OSError as error:
        raise ConfigError(f"the profile cannot be saved: {error}") from error


def _say(text: str) -> None:
    click.echo(text, err=True)
