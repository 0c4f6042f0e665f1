"""Passes of a network recorded on a GPU: a thousand small kernels are launched as one, which the host alone takes
longer for than the GPU for running them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Pass = Callable[[Tensor], Tensor]


class Recorder:
    """Runs passes over windows; one that comes again, with its shape and key, is recorded, and replayed from then on.

    The first `MOST` kinds of passes are recorded. They share the memory that the largest takes, but for their results.
    """

    MOST = 4

    def __init__(self) -> None:
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._pool: Any = None
        self._works = True

    def run(self, make: Pass, windows: Tensor, key: Hashable) -> Tensor:
        """Return `make(windows)`; what is returned may be written over by the next call.

        key: whatever the pass depends on beside the windows' shape and type.
        """
        key = (key, windows.shape, windows.dtype, windows.device)
        if key not in self._recordings:
            if len(self._recordings) < self.MOST:
                self._recordings[key] = None
            return make(windows)  # which also lets libraries choose and build what they need
        found = self._recordings[key]
        if found is None and self._works:
            try:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                found = self._recordings[key] = _Recording(make, windows, self._pool)
            except RuntimeError as error:
                self._works = False
                logging.getLogger(__name__).warning("a pass could not be recorded (%s); it is launched anew", error)
        return make(windows) if found is None else found.replay(windows)

    def clear(self) -> None:
        """Give back the memory of all recordings."""
        self._recordings, self._pool, self._works = {}, None, True


class _Recording:
    def __init__(self, make: Pass, windows: Tensor, pool: Any) -> None:
        self._windows = windows.clone()
        beside = torch.cuda.Stream(windows.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(windows.device))
        with torch.cuda.stream(beside):
            make(self._windows)  # on a stream of its own, as libraries set up what they need by stream
        torch.cuda.current_stream(windows.device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile
        with torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"):
            self._found = make(self._windows)

    def replay(self, windows: Tensor) -> Tensor:
        self._windows.copy_(windows)
        self._graph.replay()
        return self._found
