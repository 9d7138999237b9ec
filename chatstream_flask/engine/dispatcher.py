"""Dispatch of requests to worker threads: which thread takes the next one, and what each has taken."""

from __future__ import annotations

from collections import Counter
from enum import Enum

from .request import GenerationRequest

MAX_REMEMBERED_OWNERS = 4096  # cache owners whose last worker thread is remembered


class WorkerState(Enum):
    """Whether a worker thread may take requests."""

    OPENING = "opening"  # loads its model
    READY = "ready"
    RETIRED = "retired"  # hung or died, and was replaced


class WorkerLoad:
    """The slots of one worker thread and the requests it has taken."""

    def __init__(self, num_slots: int, device: int, state: WorkerState) -> None:
        self.num_slots = num_slots
        self.device = device
        self.state = state
        self.taken: set[GenerationRequest] = set()

    @property
    def has_free_slot(self) -> bool:
        return self.state is WorkerState.READY and len(self.taken) < self.num_slots


class Dispatcher:
    """Assigns requests to worker threads. The queue's lock guards it; any thread may read the counts."""

    def __init__(self, num_slots: list[int], devices: list[int]) -> None:
        self._workers = [  # ready from the beginning: requests are accepted only once all are open
            WorkerLoad(num, device, WorkerState.READY) for num, device in zip(num_slots, devices, strict=True)
        ]
        self._last_workers: dict[str | None, int] = {}  # by cache owner, the most recent last

    @property
    def num_free_slots(self) -> int:
        num_slots = sum(load.num_slots for load in self._workers if load.state is WorkerState.READY)
        return num_slots - self.num_running

    @property
    def num_running(self) -> int:
        return sum(len(load.taken) for load in self._workers)

    @property
    def num_busy(self) -> int:
        """Worker threads that have requests."""
        return sum(bool(load.taken) for load in self._workers)

    def is_next(self, worker: int, request: GenerationRequest) -> bool:
        """Return whether this thread should take this request.

        The thread that had the conversation last comes first if it has a free slot, as it may still hold its
        keys and values. Otherwise it is the least loaded thread of the least loaded device.
        """
        device_loads = Counter[int]()
        for load in self._workers:
            device_loads[load.device] += len(load.taken)
        loads = {
            i: (device_loads[load.device], len(load.taken))
            for i, load in enumerate(self._workers)
            if load.has_free_slot
        }
        if worker not in loads:
            return False
        last = self._last_workers.get(request.cache_owner)
        return worker == last if last in loads else loads[worker] == min(loads.values())

    def take(self, worker: int, request: GenerationRequest) -> None:
        self._workers[worker].taken.add(request)
        if (owner := request.cache_owner) is not None:
            self._last_workers.pop(owner, None)
            self._last_workers[owner] = worker
            if len(self._last_workers) > MAX_REMEMBERED_OWNERS:
                del self._last_workers[next(iter(self._last_workers))]

    def remove(self, worker: int, request: GenerationRequest) -> bool:
        """Remove a request from its thread; return whether the thread still had it."""
        taken = self._workers[worker].taken
        if request not in taken:
            return False
        taken.remove(request)
        return True

    # -- worker threads that come and go -----------------------------------------------------------

    def add_worker(self, predecessor: int) -> int:
        """Add a thread with the slots and the device of its predecessor; return its number."""
        old = self._workers[predecessor]
        self._workers.append(WorkerLoad(old.num_slots, old.device, WorkerState.OPENING))
        return len(self._workers) - 1

    def set_ready(self, worker: int) -> None:
        """Let a thread take requests, unless it was retired while it was opening."""
        load = self._workers[worker]
        if load.state is WorkerState.OPENING:
            load.state = WorkerState.READY

    def retire(self, worker: int) -> list[GenerationRequest]:
        """Let a thread take nothing any more, and return the requests that it had."""
        load = self._workers[worker]
        load.state = WorkerState.RETIRED
        taken, load.taken = load.taken, set()
        return list(taken)

    def is_retired(self, worker: int) -> bool:
        return self._workers[worker].state is WorkerState.RETIRED
