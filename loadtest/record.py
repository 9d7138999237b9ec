"""Records: one request as its visitor saw it, and the file that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

RIGHT = "right"
REFUSED = "refused"
LEFT = "left"  # the visitor disconnected during the reply, as planned
WRONG = "wrong"
FORGOTTEN = "forgotten"  # the reply lacks the visitor's own name
MIXED_UP = "mixed_up"  # the reply or the conversation contains another visitor's data
FAILED = "failed"  # a 5xx, an interrupted stream, an error event
FAULTS = (WRONG, MIXED_UP, FAILED)


@dataclass(kw_only=True)
class Record:
    """One request. Times are seconds of the monotonic clock, which all processes of a machine share."""

    visitor: str
    action: str  # "ask", "regenerate", "clear", "conversation"
    sent_at: float
    status: int = 0
    headers_at: float | None = None
    started_at: float | None = None  # the reply got its slot
    ended_at: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # of text: time, number of words
    num_tokens: int = 0
    retry_after: float | None = None  # seconds
    verdict: str = FAILED
    detail: str = ""  # human-readable: what was wrong
    text: str = field(default="", repr=False)  # received so far; not written to the file

    @property
    def first_at(self) -> float | None:
        return self.arrivals[0][0] if self.arrivals else None

    @property
    def gaps_sec(self) -> list[float]:
        """Return the seconds between arrivals of text."""
        times = [at for at, _ in self.arrivals]
        return [late - early for early, late in pairwise(times)]


def to_line(record: Record) -> str:
    fields = asdict(record)
    del fields["text"]
    fields["arrivals"] = [[round(at, 5), words] for at, words in record.arrivals]
    return json.dumps({"kind": "record", **fields})


@dataclass
class Phase:
    """One run of the generator: its records, its time span, and the generator's own delays."""

    began_at: float = 0.0
    ended_at: float = 0.0
    cpu_sec: float = 0.0  # of the generator
    records: list[Record] = field(default_factory=list)
    late_sec: list[float] = field(default_factory=list)  # delays of a heartbeat greenlet

    @property
    def faults(self) -> list[Record]:
        return [record for record in self.records if record.verdict in FAULTS]


def read_phase(path: Path) -> Phase:
    phase = Phase()
    for line in _lines(path):
        kind = line.pop("kind")
        if kind == "record":
            line["arrivals"] = [(at, words) for at, words in line["arrivals"]]
            phase.records.append(Record(**line))
        elif kind == "late":
            phase.late_sec += line["sec"]
        else:
            setattr(phase, kind, line["value"])
    return phase


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        lines: Iterable[str] = file
        yield from map(json.loads, lines)
