"""The Dask cluster of a run: worker processes on this machine, or those of a scheduler elsewhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from tasks.lost import RunStopped
from tasks.settings import Settings

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from tasks.dispatch import Dispatcher

LOCAL = "local"
"""The address that stands for processes on this machine."""

WORKER_GIB = 4
"""Memory that each local worker is left by default: a long CT at full resolution takes about that much."""

CONNECT_S = 20.0
"""How long to wait for a scheduler, and for its first worker."""

# One thread a process, also inside libraries: the cores are shared out by processes.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")

_current: ContextVar[CaseCluster | None] = ContextVar("case_cluster", default=None)


@contextmanager
def case_cluster(settings: Settings) -> Iterator[CaseCluster | None]:
    """Keep one cluster for every `map_cases` in the block, also in Prefect tasks that it starts; None without Dask.

    A block inside another of the same address shares its cluster. Nothing is started before the first case, and at the
    end, whatever the reason, the processes that were started are gone.
    """
    if settings.dask_address is None:
        yield None
        return
    outer = _current.get()
    if outer is not None and outer.address == settings.dask_address:
        yield outer
        return
    cluster = CaseCluster(settings)
    token = _current.set(cluster)
    try:
        yield cluster
    finally:
        _current.reset(token)
        cluster.close()


class CaseCluster:
    """A cluster that is connected to, or started, when the first case comes."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.dask_address
        self._settings = settings
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._dispatcher: Dispatcher | None = None
        self._closed = False

    def dispatcher(self) -> Dispatcher:
        """Return what hands cases to the workers; RunStopped once the cluster is closed."""
        from tasks.dispatch import Dispatcher  # heavy, and not needed by a plain loop

        with self._lock:
            if self._closed:
                raise RunStopped("the run was stopped before this batch began")
            if self._dispatcher is None:
                client, replace_lost = self._open.enter_context(_connected(self._settings))
                self._dispatcher = Dispatcher(client, self._settings.case_limit_s, replace_lost)
                self._open.callback(self._dispatcher.close)
            return self._dispatcher

    def close(self) -> None:
        """Stop what waits and runs, and end the processes that were started for it."""
        with self._lock:
            self._closed = True
            self._open.close()


@contextmanager
def _connected(settings: Settings) -> Iterator[tuple[Client, Callable[[], None]]]:
    """Yield a client, and what to call while workers are missing."""
    from distributed import Client

    if settings.dask_address == LOCAL:
        from tasks.dispatch import LeaveInterrupts

        with _local_cluster(settings) as cluster, Client(cluster, set_as_default=False) as client:
            client.register_plugin(LeaveInterrupts())
            yield client, partial(cluster.scale, len(cluster.workers))
        return
    try:
        client = Client(settings.dask_address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as problem:
        raise ConnectionError(
            f"CTFACTORY_DASK_ADDRESS: no Dask scheduler answers at {settings.dask_address!r} ({problem}); expected "
            f"`{LOCAL}`, or the address of a running one such as tcp://host:8786"
        ) from problem
    with client:
        _check_workers(client, str(settings.dask_address))
        yield client, lambda: None  # whoever started those workers replaces them


def _check_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError as problem:
        raise ConnectionError(
            f"Dask scheduler {address} has no worker after {CONNECT_S:g} s; start some: "
            f"dask worker {address} --nthreads 1"
        ) from problem
    for worker, about in client.scheduler_info()["workers"].items():
        if about["nthreads"] != 1:
            raise ValueError(
                f"Dask worker {worker} has {about['nthreads']} threads, expected 1, so that a lost worker tells which "
                f"case it was busy with; start it with: dask worker {address} --nthreads 1 --nworkers "
                f"{about['nthreads']}"
            )


@contextmanager
def _local_cluster(settings: Settings) -> Iterator[LocalCluster]:
    """Yield a scheduler in this process, with workers that are processes of their own, each with a nanny here."""
    import dask
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    count = settings.workers or default_workers()
    gib = settings.worker_memory_gib
    # On a machine that is busy a worker takes longer to come back than Dask expects.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"})
    with (
        patient,
        LocalCluster(
            processes=True,
            n_workers=count,
            threads_per_worker=1,
            memory_limit=MEMORY_LIMIT // count if gib is None else int(gib * 2**30),
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what becomes of a case is told by its result
            scheduler_kwargs={"allowed_failures": 0, "dashboard": False},  # each try is ours to count
            env=ONE_THREAD,
            # The results are small records: nothing to spill, and a worker paused for its memory would stay so.
            config={f"distributed.worker.memory.{bar}": False for bar in ("target", "spill", "pause")},
        ) as cluster,
    ):
        yield cluster


def default_workers() -> int:
    """Return one worker a core, or fewer where that would leave a worker less than `WORKER_GIB`."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    return max(1, min(int(CPU_COUNT), int(MEMORY_LIMIT) // (WORKER_GIB * 2**30)))
