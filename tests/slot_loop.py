"""A minimal serving loop over a Runner, without the scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tiny_models import Job, make_sequence

from chatstream_flask.engine.runner import Runner
from chatstream_flask.engine.sequence import Chunk, Sequence


def prefill(runner: Runner, sequence: Sequence, num_tokens: int) -> list[int]:
    """Prefill tokens of a sequence and return its new ids."""
    (new_ids,) = runner.prefill([Chunk(sequence, num_tokens)])()
    return new_ids


def serve(runner: Runner, jobs: list[Job], *, num_slots: int, chunk_len: int) -> list[list[int]]:
    """Serve the jobs and return the new ids of each.

    Each step admits jobs, prefills one chunk, decodes all sequences once, and fills the slots of finished
    sequences.
    """
    waiting = list(enumerate(jobs))
    running: dict[int, Sequence] = {}  # job number -> sequence
    replies: list[list[int]] = [[] for _ in jobs]
    step = 0
    while waiting or running:
        while waiting and waiting[0][1].arrives_at <= step and len(running) < num_slots:
            number, job = waiting.pop(0)
            running[number] = make_sequence(job.prompt_ids, job.params, slot=len(running))
        _prefill_one(runner, running, chunk_len)
        _decode_all(runner, running)
        for number in [n for n, s in running.items() if _num_new(s) >= jobs[n].num_new]:
            sequence = running.pop(number)
            stop = sequence.num_prompt + jobs[number].num_new  # drafts may go beyond it
            replies[number] = sequence.token_ids[sequence.num_prompt : stop]
            _fill_hole(runner, running, sequence.slot)
        step += 1
    return replies


def serve_in_two_threads(
    make_runner: Callable[[], Runner], jobs: list[Job], *, num_slots: int
) -> dict[int, list[list[int]]]:
    """Serve the same jobs in two threads with a runner each; return the replies by thread number."""
    replies: dict[int, list[list[int]]] = {}

    def work(number: int) -> None:
        runner = make_runner()
        replies[number] = serve(runner, jobs, num_slots=num_slots, chunk_len=6 + number)
        runner.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def _num_new(sequence: Sequence) -> int:
    return len(sequence.token_ids) - sequence.num_prompt


def _prefill_one(runner: Runner, running: dict[int, Sequence], chunk_len: int) -> None:
    prefilling = [s for s in running.values() if not s.is_decoding]
    if prefilling:
        sequence = prefilling[-1]  # the newest first, so that older ones become padding rows
        num_tokens = min(chunk_len, sequence.num_pending)
        new_ids = prefill(runner, sequence, num_tokens)
        sequence.num_cached += num_tokens
        sequence.token_ids += new_ids


def _decode_all(runner: Runner, running: dict[int, Sequence]) -> None:
    decoding = [s for s in running.values() if s.is_decoding]
    if decoding:
        for sequence, new_ids in zip(decoding, runner.decode(decoding), strict=True):
            sequence.num_cached += len(new_ids)
            sequence.token_ids += new_ids


def _fill_hole(runner: Runner, running: dict[int, Sequence], hole: int) -> None:
    last = max(running.values(), key=lambda s: s.slot, default=None)
    if last is not None and last.slot > hole:
        runner.copy_slot(last.slot, hole, last.num_cached)
        last.slot = hole
