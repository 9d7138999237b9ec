"""WaitEstimate: waiting times from the durations of the latest replies."""

from __future__ import annotations

import pytest

from chatstream_flask.engine.wait_estimate import NUM_REPLIES, WaitEstimate


def estimate(*durations: float, num_slots: int = 2) -> WaitEstimate:
    result = WaitEstimate(num_slots)
    for duration in durations:
        result.add(duration)
    return result


def test_nothing_is_known_before_the_first_reply() -> None:
    unknown = estimate()
    assert unknown.sec_until_start(1, num_running=0, num_waiting=0, num_startable=0) is None
    assert (unknown.retry_after_sec, unknown.visitor_retry_after_sec) == (1, 1)


@pytest.mark.parametrize(
    ("position", "num_running", "num_startable", "expected"),
    [
        (1, 1, 9, 0.0),  # a slot is free
        (1, 2, 9, 5.0),
        (3, 2, 9, 15.0),
        (1, 1, 0, 10.0),  # waits for a reply of its own visitor
        (5, 2, 4, 25.0),
    ],
)
def test_seconds_until_a_position_starts(
    position: int, num_running: int, num_startable: int, expected: float
) -> None:
    sec = estimate(8, 12).sec_until_start(
        position, num_running=num_running, num_waiting=9, num_startable=num_startable
    )
    assert sec == expected


def test_retry_after_is_whole_seconds_that_clients_honour() -> None:
    assert (estimate(9).retry_after_sec, estimate(9).visitor_retry_after_sec) == (5, 9)
    assert estimate(1000).retry_after_sec == 59


def test_only_the_latest_replies_count() -> None:
    assert estimate(500, *[4.0] * NUM_REPLIES).visitor_retry_after_sec == 4
