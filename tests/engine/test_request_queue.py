"""RequestQueue: bounded, hands out each request once, first in first out for each visitor."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import TIMEOUT, FakeClock, ask

from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.places import Reservation
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.request_queue import RequestQueue
from chatstream_flask.errors import NotAccepting, TooManyRequests


def put(queue: RequestQueue, *texts: str) -> list[GenerationRequest]:
    requests = [ask(text) for text in texts]
    for request in requests:
        queue.put(request, queue.reserve())
    return requests


def test_eighth_of_seven_is_refused_until_a_place_is_given_back() -> None:
    queue = RequestQueue(7, [2])
    reservations = [queue.reserve() for _ in range(7)]
    with pytest.raises(TooManyRequests, match="all 7 places are taken"):
        queue.reserve()
    reservations[3].close()
    reservations[3].close()  # has no effect
    queue.reserve()
    with pytest.raises(TooManyRequests):
        queue.reserve()
    assert repr(queue) == "<RequestQueue [7/7 accepted, 0 waiting]>"


def test_places_for_several_are_given_all_or_none() -> None:
    queue = RequestQueue(7, [2])
    first = queue.reserve_all(5)
    with pytest.raises(TooManyRequests, match="3 places are needed and 2 are free"):
        queue.reserve_all(3)
    assert queue.num_accepted == 5
    assert len({*first, *queue.reserve_all(2)}) == queue.num_accepted == 7


def test_fifty_at_once_get_exactly_seven_places() -> None:
    queue = RequestQueue(7, [2])
    barrier = threading.Barrier(50)

    def reserve(_: int) -> Reservation | None:
        barrier.wait(TIMEOUT)
        try:
            return queue.reserve()
        except TooManyRequests:
            return None

    with ThreadPoolExecutor(50) as pool:
        reservations = list(pool.map(reserve, range(50)))
    assert sum(it is not None for it in reservations) == queue.num_accepted == 7


def test_first_in_first_out() -> None:
    queue = RequestQueue(9, [9])
    requests = put(queue, "a", "b", "c")
    assert [queue.take(0, wait=False) for _ in range(3)] == requests
    assert queue.take(0, wait=False) is None


def test_position_counts_from_one_and_moves_up() -> None:
    queue = RequestQueue(9, [9])
    a, b, c = put(queue, "a", "b", "c")
    assert [queue.position(r) for r in (a, b, c)] == [1, 2, 3]
    queue.take(0, wait=False)
    queue.discard(b)
    assert [queue.position(r) for r in (a, b, c)] == [0, 0, 1]


def test_least_loaded_thread_goes_first() -> None:
    queue = RequestQueue(9, [2, 1])
    put(queue, "a", "b", "c", "d")
    assert queue.take(0, wait=False)
    assert queue.take(0, wait=False) is None
    second = queue.take(1, wait=False)
    assert second is not None
    assert queue.take(1, wait=False) is None  # its only slot is taken
    assert queue.take(0, wait=False)
    assert queue.take(0, wait=False) is None
    assert queue.done(1, second)
    assert queue.take(1, wait=False)
    assert queue.num_running == 3


def test_least_loaded_device_goes_first() -> None:
    queue = RequestQueue(9, [2, 2, 2, 2], devices=[0, 1, 0, 1])
    put(queue, "a", "b", "c", "d")
    assert queue.take(0, wait=False)
    assert queue.take(2, wait=False) is None  # idle, but its device is not
    assert queue.take(3, wait=False)
    assert queue.take(0, wait=False) is None
    assert queue.take(2, wait=False)
    queue.retire(1)
    successor = queue.add_worker(1)
    queue.set_ready(successor)
    assert queue.take(successor, wait=False)


def test_a_reservation_serves_one_request() -> None:
    queue = RequestQueue(2, [1])
    reservation = queue.reserve()
    queue.put(ask("a"), reservation)
    with pytest.raises(RuntimeError, match="needs an open reservation of its own"):
        queue.put(ask("b"), reservation)
    with pytest.raises(RuntimeError, match="it keeps its place"):
        reservation.close()
    assert (queue.num_waiting, queue.num_accepted) == (1, 1)
    other = queue.reserve()
    other.close()
    with pytest.raises(RuntimeError, match="needs an open reservation of its own"):
        queue.put(ask("b"), other)


def test_take_or_discard_gets_it_never_both() -> None:
    queue = RequestQueue(500, [500])
    requests = put(queue, *["x"] * 500)
    start = threading.Barrier(2)

    def take_all() -> list[GenerationRequest]:
        start.wait(TIMEOUT)
        return [r for _ in requests if (r := queue.take(0, wait=False)) is not None]

    def discard_all() -> list[GenerationRequest]:
        start.wait(TIMEOUT)
        return [r for r in reversed(requests) if queue.discard(r)]

    with ThreadPoolExecutor(2) as pool:
        taken, discarded = pool.submit(take_all), pool.submit(discard_all)
    both = taken.result() + discarded.result()
    assert len(both) == 500
    assert set(both) == set(requests)


def test_overdue_is_popped_wherever_it_stands_in_time_and_not_before() -> None:
    clock = FakeClock()
    queue = RequestQueue(9, [1], clock=clock)
    requests = [ask("a", clock=clock, timeout_sec=sec) for sec in (100, 5, 100, 5)]
    for request in requests:
        queue.put(request, queue.reserve())
    assert queue.pop_overdue() == []
    clock.advance(5)
    requests[2].request_stop(FinishReason.DISCONNECTED)
    assert queue.pop_overdue() == requests[1:]
    assert (queue.pop_overdue(), queue.num_waiting, queue.position(requests[0])) == ([], 1, 1)


def test_looks_for_overdue_ten_times_a_second_at_most() -> None:
    clock = FakeClock()
    queue = RequestQueue(9, [1], clock=clock)
    a, b = put(queue, "a", "b")
    a.request_stop(FinishReason.CANCELLED)
    assert queue.pop_overdue() == [a]
    b.request_stop(FinishReason.CANCELLED)
    clock.advance(0.09)
    assert queue.pop_overdue() == []
    clock.advance(0.02)
    assert queue.pop_overdue() == [b]


def test_take_wakes_for_a_request_and_for_the_end() -> None:
    queue = RequestQueue(9, [2])
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(queue.take, 0, wait=True)
        requests = put(queue, "a")
        assert taken.result(TIMEOUT) is requests[0]
        taken = pool.submit(queue.take, 0, wait=True)
        queue.close()
        assert taken.result(TIMEOUT) is None


def test_close_hands_over_what_waits_and_refuses_new() -> None:
    queue = RequestQueue(9, [1])
    requests = put(queue, "a", "b")
    reservation = queue.reserve()
    assert queue.take(0, wait=False) is requests[0]
    assert queue.close() == requests[1:]
    assert queue.close() == []
    assert queue.is_exhausted
    with pytest.raises(NotAccepting):
        queue.reserve()
    with pytest.raises(NotAccepting):
        queue.put(ask("c"), reservation)
    assert set(queue.requests()) == set(requests)


def test_refuse_new_lets_the_rest_go_on() -> None:
    queue = RequestQueue(9, [1])
    (request,) = put(queue, "a")
    queue.refuse_new()
    assert not queue.is_exhausted
    assert queue.take(0, wait=True) is request
    assert queue.is_exhausted
    assert request.stop_reason is None


def test_wait_until_empty_waits_for_every_place() -> None:
    queue = RequestQueue(2, [1])
    reservations = [queue.reserve(), queue.reserve()]
    reservations[0].close()
    assert not queue.wait_until_empty(0.001)
    with ThreadPoolExecutor(1) as pool:
        is_empty = pool.submit(queue.wait_until_empty, TIMEOUT)
        reservations[1].close()
        assert is_empty.result(TIMEOUT)


def test_cancelled_before_it_was_taken_has_its_reason() -> None:
    queue = RequestQueue(2, [1])
    (request,) = put(queue, "a")
    request.request_stop(FinishReason.DISCONNECTED)
    assert queue.pop_overdue() == [request]
    assert request.stop_reason is FinishReason.DISCONNECTED


def test_retired_thread_gets_nothing_and_loses_what_it_had() -> None:
    queue = RequestQueue(9, [1])
    first, second = put(queue, "a", "b")
    assert queue.take(0, wait=False) is first
    assert queue.retire(0) == [first]
    assert queue.retire(0) == []
    assert not queue.done(0, first)
    assert queue.take(0, wait=True) is None  # does not block
    assert (queue.num_running, queue.num_waiting) == (0, 1)
    successor = queue.add_worker(0)
    assert queue.take(successor, wait=False) is None  # not ready
    assert (queue.is_retired(0), queue.is_retired(successor)) == (True, False)
    queue.set_ready(successor)
    assert queue.take(successor, wait=False) is second
    assert queue.done(successor, second)
    assert not queue.done(successor, second)


def test_thread_that_is_not_ready_holds_up_nobody() -> None:
    queue = RequestQueue(9, [1, 1])
    (request,) = put(queue, "a")
    queue.retire(0)
    queue.add_worker(0)
    assert queue.take(1, wait=False) is request


def test_a_place_is_released_once_its_request_has_finished() -> None:
    queue = RequestQueue(2, [1])
    (request,) = put(queue, "a")
    with pytest.raises(RuntimeError, match="keeps its place until it has finished"):
        queue.release(request)
    assert queue.take(0, wait=False) is request
    assert queue.done(0, request)
    request.finish(FinishReason.STOP)
    assert queue.num_accepted == 1
    queue.release(request)
    assert queue.num_accepted == 0


def test_thread_that_opens_after_it_was_retired_gets_nothing() -> None:
    queue = RequestQueue(9, [1])
    put(queue, "a")
    queue.retire(0)
    successor = queue.add_worker(0)
    assert queue.retire(successor) == []
    queue.set_ready(successor)
    assert queue.is_retired(successor)
    assert queue.take(successor, wait=False) is None
