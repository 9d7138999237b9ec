"""GraphReplay: what is launched again and again in the same shape, as CUDA graphs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable

import torch

logger = logging.getLogger("chatstream_flask")

MAX_GRAPHS = 256
_capturing = threading.Lock()  # one thread at a time


class GraphReplay:
    """Belongs to one generation thread, on whose stream it captures, into a memory pool of its own.

    Where a capture fails, everything is launched as before, and the log says why.
    """

    def __init__(self, *, captures: bool) -> None:
        """:param captures: on CUDA; else everything is launched each time"""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if captures else None
        self._can_capture = captures

    def run(self, key: Hashable, compute: Callable[[], None]) -> None:
        """By the graph of this key; the first time by `compute`, of which one is made then.

        :param compute: reads and writes only tensors that stay where they are, and waits for nothing
        """
        if (graph := self._graphs.get(key)) is not None:
            graph.replay()
            return
        compute()  # also makes what is made only once, which a capture must not
        if self._can_capture and len(self._graphs) < MAX_GRAPHS:
            self._capture(key, compute)

    def _capture(self, key: Hashable, compute: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local": what other threads do on the device meanwhile must not spoil it.
            with _capturing:
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    compute()
                finally:
                    graph.capture_end()
        except RuntimeError:
            self._can_capture = False
            logger.warning(
                "a step cannot be captured as a CUDA graph; it is launched anew each time", exc_info=True
            )
        else:
            self._graphs[key] = graph
