"""The body of a streamed response: typed server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...chat.wire_format import server_sent_event
from ...errors import ChatStreamError
from ..answer_stream import ChoiceStream
from ..generations import Choice, Generations, News
from .output import Json, ResponseOutput


class ResponseStream(ChoiceStream):
    """Events of one response.

    :param save: stores the finished response, before its client is told of the end
    """

    def __init__(
        self, generations: Generations, output: ResponseOutput, save: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(generations, **options)
        self._output = output
        self._save = save

    def _begin(self) -> bytes:
        return _written(self._output.begin())

    def _tell(self, index: int, news: News) -> tuple[bytes, News]:
        events = b""
        for delta in news.deltas:
            events += _written(self._output.add(delta, news.logprobs))
            news = news._replace(logprobs=[])
        return events, news

    def _end(self, index: int, choice: Choice, news: News) -> bytes:
        assert choice.outcome is not None
        events = _written(self._output.complete(choice.outcome))
        try:
            self._save()
        except ChatStreamError as error:
            return events + self._fail(error)
        return events + _written([self._output.end()])

    def _fail(self, error: ChatStreamError) -> bytes:
        return _written([self._output.fail(error)])

    def _finish(self) -> bytes:
        return b""


def _written(events: Iterable[Json]) -> bytes:
    """Return events as text; each is written at once, as the next one changes the response that it shows."""
    return b"".join(server_sent_event(event, name=event["type"]) for event in events)
