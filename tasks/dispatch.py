"""Hand cases to Dask workers, one at a time each, so that a worker that is lost tells which case cost it."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from uuid import uuid4

from distributed import Client, KilledWorker, WorkerPlugin
from distributed import Future as DaskFuture
from distributed.protocol import pickle

from tasks.lost import TRIES, Lost, Reason, RunStopped

Case = TypeVar("Case")
Result = TypeVar("Result")

LOOK_EVERY_S = 0.5
"""How often the list of workers is read while nothing finishes."""

SETTLED_S = 0.3
"""How long a worker is left alone after it came: one that crashes before its nanny knows it is not started again."""

WITHOUT_WORKERS_S = 120.0
"""How long cases wait for a cluster that has lost all of its workers."""

RESULT_S = 30.0
"""How long the small record of a finished case may take to arrive."""

MEMORY_TOPIC = "worker-restart-memory"
"""Dask's own topic: a nanny says there that it ends a worker for its memory, and with how many bytes."""

CLOCKS_DIFFER_S = 2.0
"""By how much the clock of a scheduler's machine may be behind ours."""


@dataclass(eq=False)
class _Job:
    """One case on its way; `answer` is what the caller waits for."""

    case: Any
    payload: bytes
    answer: Future[Any] = field(default_factory=Future)
    tries: int = 0
    alone: bool = False
    worker: str = ""
    started: float = 0.0
    missed: int = 0


@dataclass(frozen=True)
class _Ended:
    """Dask is through with a job, one way or another."""

    job: _Job
    future: DaskFuture


class LeaveInterrupts(WorkerPlugin):  # type: ignore[misc]
    """Lets workers of this machine leave Ctrl-C, which reaches all processes of a terminal, to the command."""

    name = "leave-interrupts"

    def setup(self, worker: Any) -> None:  # noqa: ARG002  (the signature is Dask's)
        """Run in the main thread of a worker when it starts."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_guarded(payload: bytes, limit_s: float) -> Any:
    """Return `function(case)` of a pickled pair; a worker that takes longer than `limit_s` ends, even in C code."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
        try:
            function, case = pickle.loads(payload)
            return function(case)
        finally:
            faulthandler.cancel_dump_traceback_later()


class Dispatcher:
    """Runs cases from any number of threads on the workers of one client, first come first served.

    A case whose worker was lost goes to the end of the queue, and for its last try waits until nothing else runs: then
    no other case can be to blame, and the case is given up by name. An innocent case is never given up for its
    neighbour's fault, and one that lost its worker to an operator runs again. limit_s: seconds that one case may take.
    replace_lost: called again and again while there are fewer workers than there were.
    """

    def __init__(self, client: Client, limit_s: float, replace_lost: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._limit_s = limit_s
        self._replace_lost = replace_lost
        self._events: SimpleQueue[_Job | _Ended | None] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._last_tries: deque[_Job] = deque()
        self._running: dict[str, tuple[_Job, DaskFuture]] = {}
        self._workers: set[str] = set()
        self._seen: dict[str, float] = {}
        self._most = 0
        self._without_since: float | None = None
        self._looked = 0.0
        self._closed = threading.Event()
        self.lost_workers: list[str] = []
        self._thread = threading.Thread(target=self._run, name="dispatch-cases", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Case], Result], case: Case) -> Future[Result | Lost[Case]]:
        """Return the future of `function(case)`; it raises RunStopped when the dispatcher closes before that.

        Raises TypeError, or what else pickling raises, for what cannot be sent."""
        job = _Job(case, pickle.dumps((function, case)))
        self._events.put(job)
        if self._closed.is_set():  # the thread may be past its last look at the queue
            _answer(job, fault=RunStopped("the run was stopped before this case began"))
        return job.answer

    def close(self) -> None:
        """Stop handing out cases; those that have not finished are answered with RunStopped."""
        self._closed.set()
        self._events.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                self._take(self._next_event())
                if time.monotonic() - self._looked > LOOK_EVERY_S:
                    self._look_at_workers()
                self._start_what_can()
            self._answer_all(RunStopped("the run was stopped; finished cases are kept, the next run goes on"))
        except Exception as problem:  # whatever it is, it must reach those who wait
            self._closed.set()
            self._answer_all(problem)

    def _next_event(self) -> _Job | _Ended | None:
        try:
            return self._events.get(timeout=LOOK_EVERY_S)
        except Empty:
            return None

    def _take(self, event: _Job | _Ended | None) -> None:
        if isinstance(event, _Job):
            self._waiting.append(event)
        elif isinstance(event, _Ended) and self._running.get(event.job.worker) == (event.job, event.future):
            del self._running[event.job.worker]
            self._settle(event.job, event.future)

    # --- handing out ---

    def _start_what_can(self) -> None:
        if any(job.alone for job, _ in self._running.values()):
            return
        for worker in self._workers - set(self._running):
            job = self._next_job()
            if job is None:
                return
            self._start(job, worker)
            if job.alone:
                return

    def _next_job(self) -> _Job | None:
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                return job
        if self._last_tries and not self._running:
            job = self._last_tries.popleft()
            job.alone = True
            return job
        return None

    def _start(self, job: _Job, worker: str) -> None:
        job.worker, job.started, job.missed = worker, time.time(), 0
        future = self._client.submit(
            run_guarded, job.payload, self._limit_s, key=f"case-{uuid4().hex}", workers=[worker], pure=False
        )
        self._running[worker] = (job, future)
        future.add_done_callback(lambda done: self._events.put(_Ended(job, done)))

    # --- what became of it ---

    def _settle(self, job: _Job, future: DaskFuture) -> None:
        if future.status == "cancelled":
            raise ConnectionError(
                "the Dask scheduler went away while cases were running; finished cases are kept: start it and run the "
                "same command again"
            )
        try:
            result = future.result(timeout=RESULT_S)
        except KilledWorker as killed:
            self._count_loss(job, killed.allowed_failures + 1, None)
        except TimeoutError:
            if future.status == "error":  # raised by the case
                job.answer.set_exception(future.exception())
            else:  # the worker was lost between finishing and handing over
                self._count_loss(job, 1, None)
        except MemoryError as error:
            self._count_loss(job, 1, f"MemoryError {error}".strip())
        except Exception as fault:  # a fault of the function is the caller's to see
            _answer(job, fault=fault)
        else:
            _answer(job, result)

    def _count_loss(self, job: _Job, tries: int, memory_error: str | None) -> None:
        reason, found = self._reason(job, tries, memory_error)
        job.tries += tries
        if memory_error is None:
            self._note_lost(job.worker)
        if job.tries >= TRIES and job.alone:
            _answer(job, Lost(job.case, reason, job.tries, found))
        elif job.tries >= TRIES - 1:
            self._last_tries.append(job)
        else:
            self._waiting.append(job)

    def _reason(self, job: _Job, tries: int, memory_error: str | None) -> tuple[Reason, str]:
        if memory_error is not None:
            return "out_of_memory", memory_error
        for stamp, event in self._client.get_events(MEMORY_TOPIC) or ():
            if event["worker"] == job.worker and stamp > job.started - CLOCKS_DIFFER_S:
                return "out_of_memory", f"{event['rss'] / 2**30:.2f} GiB in use when the worker was ended"
        if time.time() - job.started >= self._limit_s * tries:
            return "timeout", f"still at work after {self._limit_s:g} s"
        return "worker_lost", "the worker process ended (a crash, a kill, or a machine that is gone)"

    # --- the workers ---

    def _look_at_workers(self) -> None:
        self._looked = time.monotonic()
        there = list_workers(self._client)
        for worker in set(self._seen) - set(there):
            self._note_lost(worker)
        self._seen = {worker: self._seen.get(worker, self._looked) for worker in there}
        self._workers = {
            worker for worker, usable in there.items() if usable and self._looked - self._seen[worker] >= SETTLED_S
        }
        self._most = max(self._most, len(there))
        if len(there) < self._most:
            self._replace_lost()
        for worker, (job, future) in list(self._running.items()):
            job.missed = 0 if worker in there or future.done() else job.missed + 1
            if job.missed > 2:  # Dask waits for that very worker, which will not come back
                del self._running[worker]
                future.cancel()
                self._count_loss(job, 1, None)
        self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        waiting = len(self._waiting) + len(self._last_tries)
        if self._workers or not waiting:
            self._without_since = None
            return
        self._without_since = self._without_since or time.monotonic()
        if time.monotonic() - self._without_since > WITHOUT_WORKERS_S:
            raise ConnectionError(
                f"the Dask cluster has had no worker of one thread for {WITHOUT_WORKERS_S:g} s, while {waiting} cases "
                "wait; start workers (dask worker ADDRESS --nthreads 1) and run the same command again"
            )

    def _note_lost(self, worker: str) -> None:
        self._workers.discard(worker)
        if worker not in self.lost_workers:
            self.lost_workers.append(worker)

    # --- the end ---

    def _answer_all(self, problem: BaseException) -> None:
        for job, future in self._running.values():
            future.cancel()
            _answer(job, fault=problem)
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, _Job):
                self._waiting.append(event)
        for job in (*self._waiting, *self._last_tries):
            _answer(job, fault=problem)


def list_workers(client: Client) -> dict[str, bool]:
    """Return the workers of a cluster, and whether cases may go to each: it runs, and has one thread."""
    workers = client.scheduler_info()["workers"]
    return {name: about["status"] == "running" and about["nthreads"] == 1 for name, about in workers.items()}


def _answer(job: _Job, result: Any = None, fault: BaseException | None = None) -> None:
    with suppress(InvalidStateError):  # nobody waits for it any more
        if fault is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(fault)
