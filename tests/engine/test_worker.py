"""Worker: single steps without a thread; sequences join and leave, and faults end as little as possible."""

from __future__ import annotations

import threading

import pytest
from fakes import Bench, CharDecoder, EchoRunner, EndlessRunner, FakeClock, ListMatcher, ask

from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest, Status
from chatstream_flask.engine.runner import NewIds
from chatstream_flask.engine.sequence import Chunk, Sequence
from chatstream_flask.errors import TooManyRequests


def reason(request: GenerationRequest) -> FinishReason | None:
    return request.outcome.finish_reason if request.outcome else None


def runner_of(bench: Bench) -> EchoRunner:
    runner = bench.workers[0].runner
    assert isinstance(runner, EchoRunner)
    return runner


def check_idle(bench: Bench) -> None:
    assert repr(bench.workers) == repr([w for w in bench.workers if not w.scheduler.running])
    assert (bench.queue.num_accepted, bench.queue.num_running, bench.queue.num_waiting) == (0, 0, 0)


def test_reply_comes_token_by_token() -> None:
    bench = Bench(slots=[2])
    request = ask("abc")
    bench.submit(request)
    texts = []
    while request.outcome is None:
        bench.step()
        texts.append(request.text)
    assert texts == ["ab", "abc", "abc"]  # the first step is a prefill and a decode
    assert reason(request) is FinishReason.STOP
    assert request.outcome.completion_tokens == 4  # with EOS
    check_idle(bench)


def test_sequences_join_and_leave_between_steps() -> None:
    bench = Bench(slots=[2])
    long, short, late = ask("abcdefgh"), ask("xy"), ask("123")
    bench.submit(long, short, late)
    bench.step()
    assert (long.text, short.text, late.status) == ("ab", "xy", Status.WAITING)
    bench.step()
    assert (reason(short), late.status) == (FinishReason.STOP, Status.WAITING)
    bench.step()
    assert (long.text, late.text) == ("abcd", "12")
    bench.finish_all()
    assert (long.text, short.text, late.text) == ("abcdefgh", "xy", "123")
    assert runner_of(bench).batches[:4] == [2, 2, 2, 2]
    check_idle(bench)


def test_hole_is_filled_with_all_that_the_last_slot_holds() -> None:
    """Including the token of the same step; EchoRunner checks the contents in the next one."""
    bench = Bench(slots=[2])
    first, second = ask("abc"), ask("defgh")
    bench.submit(first, second)
    for _ in range(3):
        bench.step()
    assert first.outcome and second.text == "defg"
    assert runner_of(bench).copies == [(1, 0, 8)]  # five prompt tokens, and three of four new ones
    bench.finish_all()
    assert second.text == "defgh"


def test_prompt_is_computed_in_chunks_while_others_decode() -> None:
    bench = Bench(slots=[2], chunk_len=4)
    quick, slow = ask("abcd"), ask("x" * 10)
    bench.submit(quick, slow)
    for _ in range(3):
        bench.step()
    assert (quick.text, slow.text) == ("abcd", "")
    bench.finish_all()
    assert runner_of(bench).chunks == [4, 4, 4, 2]
    assert slow.text == "x" * 10


@pytest.mark.parametrize(("prompt_lens", "num_begun"), [((100, 100, 56, 9), 3), ((1,) * 9, 8), ((257, 1), 0)])
def test_a_step_computes_one_chunk_of_prompts(prompt_lens: tuple[int, ...], num_begun: int) -> None:
    """Short prompts share the chunk; each counts as 32 tokens at least."""
    bench = Bench(slots=[9], chunk_len=256)
    requests = [ask("x" * length) for length in prompt_lens]
    bench.submit(*requests)
    bench.step()
    assert [bool(request.text) for request in requests] == [i < num_begun for i in range(len(requests))]
    bench.finish_all()
    check_idle(bench)


def test_length_ends_a_reply() -> None:
    bench = Bench(slots=[1], make_runner=EndlessRunner)
    request = ask("hi", max_new_tokens=5)
    bench.submit(request)
    bench.finish_all()
    assert (request.text, reason(request)) == ("aaaaa", FinishReason.LENGTH)


def test_stop_string_ends_a_reply_and_is_not_emitted() -> None:
    bench = Bench(slots=[1])
    request = ask("one two three", stop=("two",))
    bench.submit(request)
    bench.finish_all()
    assert (request.text, reason(request)) == ("one ", FinishReason.STOP)


def test_control_token_among_the_stop_strings_ends_a_reply() -> None:
    """It would not be found in the text, as decoders leave out control tokens."""
    bench = Bench(slots=[1])
    request = ask("one two", stop_ids=frozenset({ord("t")}))
    bench.submit(request)
    bench.finish_all()
    assert (request.text, reason(request)) == ("one ", FinishReason.STOP)


def test_text_filter_rewrites_and_its_rest_is_emitted() -> None:
    bench = Bench(slots=[1])
    request = ask("hello", text_filter=UpperFilter())
    bench.submit(request)
    bench.finish_all()
    assert request.text == "HELLO!"


def test_overdue_end_though_all_slots_are_busy() -> None:
    clock = FakeClock()
    bench = Bench(slots=[1], make_runner=EndlessRunner)
    busy = ask("busy", clock=clock, timeout_sec=100, max_new_tokens=1000)
    waiting = [ask("x", clock=clock, timeout_sec=5) for _ in range(3)]
    bench.submit(busy, *waiting)
    bench.step()
    clock.advance(5)
    bench.step()
    assert [reason(r) for r in waiting] == [FinishReason.TIMEOUT] * 3
    assert busy.status is Status.RUNNING
    clock.advance(100)
    bench.step()
    assert reason(busy) is FinishReason.TIMEOUT
    check_idle(bench)


def test_stop_requested_before_discard_keeps_its_reason() -> None:
    bench = Bench(slots=[1])
    busy, waiting = ask("busy"), ask("x")
    bench.submit(busy, waiting)
    bench.step()
    waiting.request_stop(FinishReason.DISCONNECTED)
    bench.step()
    assert reason(waiting) is FinishReason.DISCONNECTED


def test_running_one_is_cancelled_at_the_next_step() -> None:
    bench = Bench(slots=[2], make_runner=EndlessRunner)
    a, b = ask("a"), ask("b")
    bench.submit(a, b)
    bench.step()
    bench.step()
    bench.cancel(a)
    assert a.status is Status.RUNNING
    bench.step()
    assert (reason(a), b.status) == (FinishReason.CANCELLED, Status.RUNNING)
    bench.cancel(b)
    bench.step()
    check_idle(bench)


def test_unwanted_before_it_runs_takes_no_slot() -> None:
    bench = Bench(slots=[1])
    request = ask("a")
    bench.submit(request)
    request.request_stop(FinishReason.CANCELLED)
    assert bench.workers[0].admit()
    assert (reason(request), request.started_at) == (FinishReason.CANCELLED, None)
    check_idle(bench)


@pytest.mark.parametrize("fault", ["prefill", "wait", "nan", "text", "decoder", "filter", "filter end"])
def test_fault_of_one_reply_ends_only_that_one(fault: str) -> None:
    bench = Bench(slots=[3], make_runner=FaultyRunner)
    text_filter = FaultyFilter(fault) if fault.startswith("filter") else None
    before, faulty, after = ask("before"), ask(fault, text_filter=text_filter), ask("after")
    bench.submit(before, faulty, after)
    bench.finish_all()
    assert faulty.outcome is not None
    assert (reason(faulty), faulty.outcome.error) == (FinishReason.ERROR, "generation failed")
    assert [reason(r) for r in (before, after)] == [FinishReason.STOP] * 2
    assert (before.text, after.text) == ("before", "after")
    check_idle(bench)


def test_two_workers_stay_within_one_of_each_other() -> None:
    bench = Bench(slots=[3, 3])
    for _ in range(6):
        bench.submit(ask("x" * 50))
        for worker in bench.workers:
            worker.admit()
        loads = [len(worker.scheduler.running) for worker in bench.workers]
        assert max(loads) - min(loads) <= 1
    assert loads == [3, 3]
    bench.finish_all()
    check_idle(bench)


def test_every_way_to_end_gives_the_place_back() -> None:
    clock = FakeClock()
    bench = Bench(slots=[1], num_waiting=2, make_runner=FaultyRunner)
    for _ in range(3):  # the second round fails if a place stays taken
        stopped, cancelled, overdue = ask("a"), ask("b"), ask("c", clock=clock, timeout_sec=5)
        bench.submit(stopped, cancelled, overdue)
        with pytest.raises(TooManyRequests):
            bench.queue.reserve()
        bench.cancel(cancelled)
        clock.advance(5)
        bench.finish_all()
        check_idle(bench)
        bench.submit(ask("prefill"), ask("decoder"), ask("nan"))
        bench.finish_all()
        check_idle(bench)
    assert len(bench.ended) == len(set(bench.ended)) == 18


class UpperFilter:
    def push(self, text: str) -> str:
        return text.upper()

    def finish(self) -> str:
        return "!"


class FaultyFilter:
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def push(self, text: str) -> str:
        if self.fault == "filter":
            raise ValueError(self.fault)
        return text

    def finish(self) -> str:
        raise ValueError(self.fault)


class FaultyDecoder(CharDecoder):
    def push(self, token_id: int) -> str:
        raise ValueError("text")


class FaultyRunner(EchoRunner):
    """Has the fault that the prompt names."""

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        if any(name_of(chunk.sequence.request) == "prefill" for chunk in chunks):
            raise ValueError("prefill")
        wait_for_ids = super().prefill(chunks)
        names = {name_of(chunk.sequence.request) for chunk in chunks}

        def wait() -> list[list[int]]:
            if "wait" in names:
                raise ValueError("wait")
            return wait_for_ids()

        return wait

    def next_id(self, sequence: Sequence) -> int:
        return -1 if name_of(sequence.request) == "nan" else super().next_id(sequence)

    def text_decoder(self, request: GenerationRequest) -> CharDecoder:
        if name_of(request) == "decoder":
            raise ValueError("decoder")
        return FaultyDecoder() if name_of(request) == "text" else CharDecoder()


def name_of(request: GenerationRequest) -> str:
    return "".join(map(chr, request.prompt_ids))


def test_reply_ends_when_its_grammar_is_complete() -> None:
    bench = Bench(slots=[2])
    cut, plain = ask("abc", grammar="ab"), ask("abc")
    bench.submit(cut, plain)
    bench.finish_all()
    assert (cut.text, reason(cut), cut.num_generated) == ("ab", FinishReason.STOP, 2)
    assert (plain.text, plain.num_generated) == ("abc", 4)
    check_idle(bench)


def test_a_grammar_that_cannot_begin_or_go_on_ends_only_its_reply(caplog: pytest.LogCaptureFixture) -> None:
    class NoGrammar(EchoRunner):
        def matcher(self, grammar: str) -> ListMatcher:
            if grammar == "none":
                raise ValueError("no such grammar")
            return ListMatcher(grammar)

    bench = Bench(slots=[3], make_runner=NoGrammar)
    never, other, plain = ask("abc", grammar="none"), ask("abc", grammar="abx"), ask("abc")
    bench.submit(never, other, plain)
    bench.finish_all()
    assert [reason(request) for request in (never, other)] == [FinishReason.ERROR] * 2
    assert (never.text, plain.text, reason(plain)) == ("", "abc", FinishReason.STOP)
    check_idle(bench)


@pytest.mark.parametrize("is_coming", [True, False])
def test_a_burst_is_gathered_while_places_are_reserved(is_coming: bool) -> None:
    """Only the first one of a burst had begun: its next tokens were weighed against the other prompts."""
    bench = Bench(slots=[4])
    bench.workers[0]._prefill_budget.record_step(100.0, 1, 0)  # seconds for a prompt token
    place = bench.queue.reserve()
    bench.submit(ask("xy"))
    if not is_coming:
        place.close()
    late = threading.Timer(0.05, lambda: bench.queue.put(ask("zz"), place))
    if is_coming:
        late.start()
    assert bench.workers[0].admit(wait=True)
    assert len(bench.running) == (2 if is_coming else 1)
    bench.finish_all()
