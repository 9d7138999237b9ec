"""A prefix that was computed, or is being computed, is not computed again for those who may see it."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from fakes import Bench, EchoRunner, ask

from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest

PREFIX = "".join(chr(ord("a") + i * i % 23) for i in range(1000))


def questions(num: int, owner: str | None = "key", **kwargs: object) -> list[GenerationRequest]:
    texts = [f"{PREFIX}{letter}??" for letter in ascii_uppercase[:num]]
    return [ask(text, cache_owner=owner, max_new_tokens=4, **kwargs) for text in texts]


def num_computed(bench: Bench) -> int:
    """Return the prompt tokens that the runner has computed: what a clock would tell, without its noise."""
    runner = bench.workers[0].runner
    assert isinstance(runner, EchoRunner)
    return sum(runner.chunks)


def cached(requests: list[GenerationRequest]) -> list[int]:
    return [request.outcome.cached_tokens for request in requests if request.outcome]


@pytest.mark.parametrize("chunk_len", [256, 4096])
@pytest.mark.parametrize("num_slots", [4, 16])
def test_sixteen_at_once_compute_their_prefix_once(chunk_len: int, num_slots: int) -> None:
    bench = Bench(slots=[num_slots], num_waiting=16, chunk_len=chunk_len)
    requests = questions(16)
    bench.submit(*requests)
    bench.finish_all()
    assert num_computed(bench) == len(PREFIX) + 16 * len("A??")
    assert cached(requests) == [0] + 15 * [len(PREFIX)]
    assert [request.text for request in requests] == 16 * [PREFIX[:4]]
    assert bench.workers[0].stats.reused["conversation"] == 15 * len(PREFIX)


def test_callers_without_a_session_reuse_what_the_app_declares_shared() -> None:
    bench = Bench(slots=[16])
    requests = questions(16, owner=None, num_shared=len(PREFIX))
    bench.submit(*requests)
    bench.finish_all()
    assert num_computed(bench) == len(PREFIX) + 16 * len("A??")
    assert bench.workers[0].stats.reused["shared"] == 15 * len(PREFIX)


@pytest.mark.parametrize("chunk_len", [256, 4096])
@pytest.mark.parametrize("at_once", [True, False])
def test_neither_time_nor_usage_tells_what_another_one_wrote(at_once: bool, chunk_len: int) -> None:
    """A stranger's request costs the same, whether or not somebody wrote the same text."""

    def costs(texts: list[str]) -> tuple[int, list[int]]:
        bench = Bench(slots=[4], chunk_len=chunk_len)
        owners = ["hanako", "taro", None, None]
        requests = [
            ask(PREFIX[:20] + text, cache_owner=owner, num_shared=20, max_new_tokens=4)
            for text, owner in zip(texts, owners, strict=True)
        ]
        for request in requests:
            bench.submit(request)
            if not at_once:
                bench.finish_all()
        bench.finish_all()
        return num_computed(bench), cached(requests)

    same = [PREFIX] * 4
    others = [str(i) * len(PREFIX) for i in range(4)]
    assert costs(same) == costs(others)


def test_a_running_reply_lends_its_prompt_and_its_reply_to_its_owner() -> None:
    bench = Bench(slots=[2])
    first = ask(PREFIX, cache_owner="key")
    bench.submit(first)
    for _ in range(20):
        bench.step()
    second = ask(PREFIX + first.text[:10] + "!", cache_owner="key", max_new_tokens=1)
    bench.submit(second)
    bench.step()
    assert second.num_reused == len(PREFIX) + 10
    bench.finish_all()


@pytest.mark.parametrize("num_steps", [1, 2])
def test_when_the_one_that_computes_the_prefix_ends_another_one_goes_on(num_steps: int) -> None:
    bench = Bench(slots=[16])
    requests = questions(16)
    bench.submit(*requests)
    for _ in range(num_steps):
        bench.step()
    bench.cancel(requests[0])
    bench.finish_all()
    assert requests[0].outcome and requests[0].outcome.finish_reason is FinishReason.CANCELLED
    assert num_computed(bench) == len(PREFIX) + 15 * len("A??")
    assert all(request.outcome and request.outcome.is_success for request in requests[1:])


def test_a_fault_in_the_prefix_makes_nobody_wait_for_ever() -> None:
    class Faulty(EchoRunner):
        def prefill(self, chunks):  # type: ignore[no-untyped-def]
            if any(chunk.sequence.request is requests[0] and chunk.stop > 500 for chunk in chunks):
                raise RuntimeError("no")
            return super().prefill(chunks)

    requests = questions(4)
    bench = Bench(slots=[4], make_runner=Faulty, chunk_len=4096)
    bench.submit(*requests)
    bench.finish_all()
    assert sorted(cached(requests)) == [0, 0, len(PREFIX), len(PREFIX)]
    assert [request.text for request in requests] == ["", *3 * [PREFIX[:4]]]


def test_a_short_common_prefix_leaves_a_long_conversation_where_it_is() -> None:
    bench = Bench(slots=[2], num_kept_slots=3)
    for text in (PREFIX, PREFIX[:100] + "another question", PREFIX[:100] + "a third one"):
        bench.submit(ask(text, cache_owner="key", max_new_tokens=4))
        bench.finish_all()
    again = ask(PREFIX + "!", cache_owner="key", max_new_tokens=1)
    bench.submit(again)
    bench.finish_all()
    assert again.num_reused == len(PREFIX)
