"""Check of a runner after failures: whether it fails at everything, or only for certain requests."""

from __future__ import annotations

import logging

from ..config import SamplingParams
from .detokenizer import Detokenizer
from .request import GenerationRequest
from .runner import Runner
from .scheduler import Scheduler
from .sequence import Chunk

logger = logging.getLogger("chatstream_flask")

MAX_STEPS = 3  # the ids of a decode step may come with the next one


def can_generate(runner: Runner, scheduler: Scheduler) -> bool:
    """Return whether the runner computes a prompt of one token and a decode step.

    :param scheduler: of the runner; nothing may be running, and it forgets what its slots hold
    """
    prompt_ids = [min(runner.eos_ids, default=0)]  # a token that every model has
    request = GenerationRequest(prompt_ids, SamplingParams(temperature=0.0))
    scheduler.remove_all()
    try:
        sequence, _ = scheduler.add(request, Detokenizer(runner.text_decoder(request), ()))
        wait_for_ids = runner.prefill([Chunk(sequence, 1)])
        sequence.num_cached = 1
        (prompt_new_ids,) = wait_for_ids()
        _append(sequence.token_ids, prompt_new_ids)
        for _ in range(MAX_STEPS):
            (new_ids,) = runner.decode([sequence])
            sequence.num_cached += len(new_ids)
            _append(sequence.token_ids, new_ids)
            if new_ids:
                break
    except Exception:
        logger.exception("a test prompt failed too")
        return False
    finally:
        for sequence in scheduler.remove_all():
            runner.forget(sequence)
    return True


def _append(token_ids: list[int], new_ids: list[int]) -> None:
    if any(token_id < 0 for token_id in new_ids):
        raise FloatingPointError("the logits are not numbers")
    token_ids += new_ids
