"""GraphReplay: operations that are launched again and again in the same shape, as CUDA graphs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable

import torch

logger = logging.getLogger("chatstream_flask")

MAX_GRAPHS = 256
_capturing = threading.Lock()  # only one thread may capture at a time


class GraphReplay:
    """CUDA graphs of one worker thread, captured on its stream into a memory pool of their own.

    If a capture fails, a warning is logged, and from then on all operations are launched without graphs.
    """

    def __init__(self, *, captures: bool) -> None:
        """:param captures: False, as on CPU: launch the operations every time"""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if captures else None
        self._can_capture = captures

    def run(self, key: Hashable, compute: Callable[[], None]) -> None:
        """Replay the graph captured for `key`; on first use run `compute` eagerly and capture it.

        :param compute: reads and writes only tensors at fixed addresses, and never synchronizes
        """
        if (graph := self._graphs.get(key)) is not None:
            graph.replay()
            return
        compute()  # the eager run also does one-time allocations, which must not be captured
        if self._can_capture and len(self._graphs) < MAX_GRAPHS:
            self._capture(key, compute)

    def _capture(self, key: Hashable, compute: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local": operations of other threads on the device must not break the capture.
            with _capturing:
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    compute()
                finally:
                    graph.capture_end()
        except RuntimeError:
            self._can_capture = False
            logger.warning(
                "a step cannot be captured as a CUDA graph; its operations are launched one by one",
                exc_info=True,
            )
        else:
            self._graphs[key] = graph
