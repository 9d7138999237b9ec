"""Answers that are not streamed."""

from __future__ import annotations

from flask import Response, jsonify

from ..engine.reply_text import TokenLogprob
from ..http.disconnect import Probe
from ..reply_format.deltas import Delta
from .answer import Answer, usage_of
from .errors import error_response
from .generations import Generations

CLIENT_CLOSED_REQUEST = 499  # only for the access log


def whole_answer(
    generations: Generations, answer: Answer, is_gone: Probe, probe_sec: float, num_prompts: int
) -> Response:
    try:
        read = _read_all(generations, is_gone, probe_sec)
    finally:
        generations.close()
    if read is None:
        return Response(status=CLIENT_CLOSED_REQUEST)
    choices = []
    for index, (choice, (deltas, logprobs)) in enumerate(zip(generations.choices, read, strict=True)):
        assert choice.outcome is not None
        if failure := choice.outcome.failure:
            return error_response(failure)
        choices.append(answer.choice(index, deltas, choice.finish_reason, logprobs))
    return jsonify(answer.whole(choices, usage_of(generations.choices, num_prompts)))


def _read_all(
    generations: Generations, is_gone: Probe, probe_sec: float
) -> list[tuple[list[Delta], list[TokenLogprob]]] | None:
    """Read all choices to their end; None if the client has gone."""
    read: list[tuple[list[Delta], list[TokenLogprob]]] = [([], []) for _ in generations.choices]
    while True:
        for (deltas, logprobs), choice in zip(read, generations.choices, strict=True):
            new_deltas, new_logprobs = choice.read()
            deltas += new_deltas
            logprobs += new_logprobs
        if generations.are_over:
            return read
        if is_gone():
            generations.close()
            return None
        generations.wait(probe_sec)
