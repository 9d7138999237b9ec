"""Answers that are not streamed."""

from __future__ import annotations

from flask import Response, jsonify

from ..http.disconnect import Probe
from .answer import Answer, usage_of
from .errors import error_response
from .generations import Generations, News

CLIENT_CLOSED_REQUEST = 499  # only for the access log


def whole_answer(
    generations: Generations, answer: Answer, is_gone: Probe, probe_sec: float, num_prompts: int
) -> Response:
    try:
        read = read_all(generations, is_gone, probe_sec)
    finally:
        generations.close()
    if read is None:
        return Response(status=CLIENT_CLOSED_REQUEST)
    choices = []
    for index, (choice, news) in enumerate(zip(generations.choices, read, strict=True)):
        assert choice.outcome is not None
        if failure := choice.outcome.failure:
            return error_response(failure)
        choices.append(answer.choice(index, choice.finish_reason, news))
    whole = answer.whole(choices, usage_of(generations.choices, num_prompts))
    if (num_top := answer.num_prompt_logprobs) is not None:
        answer.add_prompts(whole, [choice.prompt_logprobs(num_top) for choice in generations.choices])
    return jsonify(whole)


def read_all(generations: Generations, is_gone: Probe, probe_sec: float) -> list[News] | None:
    """Read all choices to their end; return None if the client has gone."""
    read = [News([], [], []) for _ in generations.choices]
    while True:
        for whole, choice in zip(read, generations.choices, strict=True):
            news = choice.read()
            whole.deltas.extend(news.deltas)
            whole.logprobs.extend(news.logprobs)
            whole.token_ids.extend(news.token_ids)
        if generations.are_over:
            return read
        if is_gone():
            generations.close()
            return None
        generations.wait(probe_sec)
