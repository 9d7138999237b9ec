"""Limits of an engine and of its visitors."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..errors import ConfigError
from .checks import check_int, check_number

MAX_RUNNING = 4096  # replies generated at once
MIN_EXTRA_READERS = 8


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Limits of an engine: how many replies run, how many requests wait, how long they are."""

    max_running: int = 2  # replies generated at once, over all threads (num_of_concurrent_executions)
    max_queue_size: int = 5  # requests that may wait, in addition
    max_api_queue_size: int | None = None  # the same for requests of /v1; None: they share max_queue_size
    num_of_generation_threads: int = 1
    context_len: int = 1024  # tokens of prompt and reply together
    prefill_chunk_len: int = 256  # maximum of prompt tokens computed in one step
    prefill_priority: float = 0.63  # share of a step that prompts may take while replies are running
    kv_cache_slots: int | None = None  # sequences whose keys and values are kept; None: max_running
    num_devices: int = 1  # each has a copy of the model and the same number of threads

    def __post_init__(self) -> None:
        check_int("num_of_concurrent_executions", self.max_running, 1, MAX_RUNNING)
        check_int("max_queue_size", self.max_queue_size, 0, 1_000_000)
        if self.max_api_queue_size is not None:
            check_int("max_api_queue_size", self.max_api_queue_size, 0, 1_000_000)
        check_int("num_of_generation_threads", self.num_of_generation_threads, 1, 64)
        check_int("context_len", self.context_len, 2)
        check_int("prefill_chunk_len", self.prefill_chunk_len, 1)
        check_number("prefill_priority", self.prefill_priority, 0, 1)
        check_int("num_devices", self.num_devices, 1)
        self._check_devices()
        if self.num_of_generation_threads > self.max_running:
            raise ConfigError(
                f"num_of_generation_threads={self.num_of_generation_threads} is more than "
                f"num_of_concurrent_executions={self.max_running}: "
                "some threads would never have a reply to generate"
            )
        if self.kv_cache_slots is not None:
            check_int("kv_cache_slots", self.kv_cache_slots, self.max_running, 65_536)

    def _check_devices(self) -> None:
        if self.max_running < self.num_devices:
            raise ConfigError(
                f"num_of_concurrent_executions={self.max_running} is less than the "
                f"{self.num_devices} devices: some would never have a reply to generate"
            )
        if self.num_of_generation_threads % self.num_devices:
            raise ConfigError(
                f"num_of_generation_threads={self.num_of_generation_threads} is not a multiple of the "
                f"{self.num_devices} devices: each needs the same number of threads"
            )

    @property
    def num_places(self) -> int:
        """Requests that can be accepted at once, running and waiting; those of /v1 may have places apart."""
        return self.max_running + self.max_queue_size

    @property
    def num_api_places(self) -> int:
        """Requests of /v1 that can be accepted at once."""
        apart = self.max_api_queue_size
        return self.num_places if apart is None else self.max_running + apart

    @property
    def num_all_places(self) -> int:
        """Requests of all kinds that can be accepted at once."""
        return self.num_places + (0 if self.max_api_queue_size is None else self.num_api_places)

    @property
    def max_waiting(self) -> int:
        """Requests of all kinds that may wait."""
        return self.max_queue_size + (self.max_api_queue_size or 0)

    @property
    def max_extra_readers(self) -> int:
        """Readers of replies beyond the first of each: second tabs, reconnections."""
        return max(self.num_places, MIN_EXTRA_READERS)

    def to_dict(self) -> dict[str, float | None]:
        """Return the settings, named as the parameters of `ChatStream` are."""
        settings = asdict(self)
        return {"num_of_concurrent_executions": settings.pop("max_running"), **settings}

    def device(self, worker: int) -> int:
        """Return the device number of worker thread `worker`."""
        return worker % self.num_devices

    def num_slots(self, worker: int) -> int:
        """Return how many sequences worker thread `worker` runs at once; threads differ by one at most."""
        return self._share(self.max_running, worker)

    def num_kept_slots(self, worker: int) -> int:
        """Return how many sequences it keeps the keys and values of, running ones included."""
        return self._share(self.kv_cache_slots or self.max_running, worker)

    def _share(self, number: int, worker: int) -> int:
        share, rest = divmod(number, self.num_of_generation_threads)
        return share + (worker < rest)


@dataclass(frozen=True, kw_only=True)
class VisitorLimits:
    """Limits for one visitor; None: no limit. Requests beyond `max_running` wait in the queue."""

    max_running: int | None = None
    max_waiting: int | None = None
    max_tokens_per_minute: int | None = None  # of prompts and replies

    def __post_init__(self) -> None:
        for name, low in (("max_running", 1), ("max_waiting", 0), ("max_tokens_per_minute", 1)):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), low)


NO_LIMITS = VisitorLimits()
