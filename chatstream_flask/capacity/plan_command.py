"""`flask chatstream plan`: how many slots, threads and processes a number of users needs."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from typing import Any

import click

from ..config import check_int
from ..demo_model import PATH as DEMO_MODEL
from ..errors import ChatStreamError, ConfigError
from ..inference.model_size import memory_bytes, model_size
from .check import compare
from .measure_profile import MOCK, Subject, measure_profile, running_client
from .picture import check_picture, draw
from .plan import Goals, gib, make_plan, num_slots_that_fit
from .profile import Profile
from .report import check_text, plan_text, profile_text
from .workload import Workload

LONGEST_REPLY = 4  # times the mean, if nothing is said of max_new_tokens
CHECK_REPLY_TOKENS = 48


@click.command()
@click.option("--dau", type=float, metavar="NUMBER", help="Users a day. Left out: only measure, or check.")
@click.option("--turns", default=5.0, show_default=True, help="Of a user in a day, in one conversation.")
@click.option("--tokens", default=200.0, show_default=True, help="Of a reply, mean.")
@click.option("--message-tokens", default=40.0, show_default=True, help="Of what a user writes, mean.")
@click.option("--system-tokens", default=0, show_default=True, help="Before each conversation.")
@click.option("--think-sec", default=30.0, show_default=True, help="From a reply to the next turn, mean.")
@click.option("--peak-share", default=0.1, show_default=True, help="Of a day's turns, in its busiest hour.")
@click.option("--spread", default=0.6, show_default=True, help="Of lengths: standard deviation over mean.")
@click.option(
    "--max-new-tokens", type=int, help="The most tokens of a reply; four times --tokens if left out."
)
@click.option("--context-len", type=int, help="Tokens of prompt and reply together; 1024, or the profile's.")
@click.option("--max-first-token-sec", default=3.0, show_default=True, help="Goal for 95 % of the turns.")
@click.option("--max-refused", default=0.01, show_default=True, help="Goal: share of turns that are refused.")
@click.option("--min-tokens-per-sec", default=5.0, show_default=True, help="Goal for 95 % of the replies.")
@click.option("--slots", type=int, help="num_of_concurrent_executions; the best if left out.")
@click.option("--threads", type=int, help="num_of_generation_threads; the best if left out.")
@click.option("--max-queue-size", type=int, help="As many as slots if left out.")
@click.option(
    "--memory-gib", type=float, help="Of one device; this machine's, or the profile's, if left out."
)
@click.option("--model", metavar="PATH_OR_HUB_ID", help="To measure; the demo model if left out, or `mock`.")
@click.option("--device", help='"cpu", "cuda", "cuda:0" or "mps"; the best there is if left out.')
@click.option("--mock-seconds-per-token", default=0.02, show_default=True)
@click.option("--measured-slots", default=16, show_default=True, help="Replies at once while measuring.")
@click.option("--profile", "profile_path", metavar="FILE", help="Measured before; nothing is measured now.")
@click.option("--save-profile", metavar="FILE", help="What was measured, for --profile.")
@click.option("--picture", metavar="FILE", help="The plan as .svg, .png or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="The plan, or the check, as JSON.")
@click.option("--check", "is_check", is_flag=True, help="Predict real loads on this machine and compare.")
@click.option("--check-seconds", default=20.0, show_default=True, help="Of each load.")
@click.option("--check-repeats", default=3, show_default=True)
@click.option(
    "--memory-only", is_flag=True, help="Only what fits, from the model's config; loads no weights."
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="For --memory-only.")
@click.option("--seed", default=0, show_default=True)
def plan(**options: Any) -> None:
    """How many slots, threads and processes so many users need, and what they will meet.

    Measures the steps of a model on this machine, then simulates its queue and schedulers.
    """
    try:
        _run(options)
    except ChatStreamError as error:
        raise click.ClickException(str(error)) from error


def _run(options: dict[str, Any]) -> None:
    if options["memory_only"]:
        _tell_memory(options)
        return
    if not (options["dau"] or options["save_profile"] or options["is_check"]):
        raise click.UsageError("say --dau NUMBER, --save-profile FILE, --check or --memory-only")
    if options["is_check"] and options["dau"]:
        raise click.UsageError("--check is about loads of its own; leave --dau out")
    if options["picture"]:
        check_picture(options["picture"])
    profile, subject = _profile(options)
    if options["save_profile"]:
        _save(profile, options["save_profile"])
    if options["is_check"]:
        _check(profile, subject, options)
    elif options["dau"]:
        _plan(profile, options)


def _tell_memory(options: dict[str, Any]) -> None:
    size = model_size(options["model"] or str(DEMO_MODEL), options["dtype"])
    context_len = options["context_len"] or size.context_len or 1024
    num_bytes = (
        _bytes(options["memory_gib"]) if options["memory_gib"] else memory_bytes(options["device"] or "cpu")
    )
    fit = num_slots_that_fit(size.weights_bytes, size.kv_bytes_per_token, num_bytes, context_len)
    told = asdict(size) | {"memory_bytes": num_bytes, "context_len": context_len, "max_slots": fit}
    if options["as_json"]:
        click.echo(json.dumps(told))
        return
    click.echo(
        f"Weights of {gib(size.weights_bytes)}, {size.kv_bytes_per_token / 1024:.4g} KiB of keys and values "
        f"for each token: {fit} slots of {context_len} tokens fit into {gib(num_bytes)}"
    )


def _profile(options: dict[str, Any]) -> tuple[Profile, Subject]:
    known = Profile.load(options["profile_path"]) if options["profile_path"] else None
    if options["threads"] is not None:
        check_int("threads", options["threads"], 1, 64)
    check_int("measured slots", options["measured_slots"], 1, 256)
    subject = Subject(
        model=options["model"] or (known.model if known else str(DEMO_MODEL)),
        device=options["device"] or (known.device if known and known.model != MOCK else None),
        context_len=options["context_len"] or (known.context_len if known else 1024),
        max_slots=options["measured_slots"],
        thread_counts=_thread_counts(options),
        mock_sec_per_token=(known and known.mock_sec_per_token) or options["mock_seconds_per_token"],
    )
    profile = known or measure_profile(subject, _say)
    click.echo(profile_text(profile), err=options["as_json"])
    return profile, subject


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


def _check(profile: Profile, subject: Subject, options: dict[str, Any]) -> None:
    num_threads = options["threads"] or profile.thread_counts[0]
    config = subject.config(num_threads, options["slots"])
    with running_client(subject, config, LONGEST_REPLY * CHECK_REPLY_TOKENS) as client:
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
