"""Engines: the engines of one chat, found and watched."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import ConfigError
from .probe import Probed, Vocabulary, probe
from .upstream import Upstream
from .upstreams import Upstreams
from .urls import EngineList

logger = logging.getLogger("chatstream_flask")

CHECK_SEC = 0.5  # between two looks for engines to probe and for changes of the list


class Engines:
    """Probes the engines once at the beginning, and those that are down or new while it is started."""

    def __init__(
        self, given: str | Sequence[str], tokenizer: Any, key: str | None, max_running_each: int | None = None
    ) -> None:
        """Probe all engines; at least one must be up.

        :param given: see `EngineList`
        :param tokenizer: the tokenizer of the model that they have
        :param key: their API key
        :param max_running_each: most replies that one of them generates at once; None: no limit
        :raises ConfigError: a URL is wrong, or no engine can be used
        """
        self.key = key
        self._list = EngineList(given)
        self._vocabulary = Vocabulary(tokenizer)
        self._context_len = 0
        self.upstreams = Upstreams(self._list.urls, max_running_each)
        self._num_users = 0
        self._starting = threading.Lock()  # guards _num_users and _thread
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        with ThreadPoolExecutor(1) as thread:  # this one may have an event loop of its own
            probed = [it for it in thread.submit(self._probe, self.upstreams.all).result() if it is not None]
        if not probed:
            faults = "; ".join(f"{it.url}: {it.fault}" for it in self.upstreams.all)
            raise ConfigError(f"no engine can be used: {faults}")
        self.model_name = probed[0].model_name
        self.model_len = min((it.model_len for it in probed if it.model_len is not None), default=None)

    def __repr__(self) -> str:
        return f"<Engines {self.upstreams.all}>"

    def use_context(self, context_len: int) -> None:
        """From now on, only use engines whose model takes as many tokens."""
        self._context_len = context_len

    def start(self) -> None:
        """Watch the engines in a thread, until `stop` was called as often as `start`."""
        with self._starting:
            self._num_users += 1
            if self._thread is None:
                self._stopped.clear()
                self._thread = threading.Thread(target=self._watch, name="chatstream-engines", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        with self._starting:
            self._num_users -= 1
            if self._num_users or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._stopped.set()
        thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(CHECK_SEC):
            try:
                self._read_list()
                self._probe([upstream for upstream in self.upstreams.all if upstream.is_probe_due])
            except Exception:
                logger.exception("a check of the engines failed; it goes on")

    def _read_list(self) -> None:
        try:
            urls = self._list.read_again()
        except ConfigError as error:
            logger.error("the list of engines stays as it was: %s", error)
            return
        if urls:
            self.upstreams.change(urls)

    def _probe(self, upstreams: Sequence[Upstream]) -> list[Probed | None]:
        if not upstreams:
            return []

        async def probe_all() -> list[Probed | None]:
            return await asyncio.gather(*map(self._probe_one, upstreams))

        return asyncio.run(probe_all())

    async def _probe_one(self, upstream: Upstream) -> Probed | None:
        try:
            probed = await probe(upstream.url, self.key, self._vocabulary)
            if probed.model_len is not None and probed.model_len < self._context_len:
                raise ConfigError(
                    f"its context has {probed.model_len} tokens, but {self._context_len} are in use"
                )
        except ConfigError as error:
            upstream.record_probe(None, str(error))
            return None
        upstream.record_probe(probed.dialect, None)
        return probed
