"""Runs the jobs of the learning study in several processes on one device, within a given time."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.learning_data import Study, load_study
from benchmarks.learning_jobs import (
    Budget,
    Job,
    arms_of,
    read_rows,
    run_job,
    score,
    settings_for,
    source_for,
    write_row,
)
from models.checkpoint import load_model
from models.train import train

PACE_STEPS = 40
FEWEST_STEPS, MOST_STEPS = 200, 3000
KEPT_BACK = 0.8
"""Share of the time left that steps are planned for; the rest is for starting, scoring and a pace that was too good."""
LAST_SECONDS = 30.0
"""Kept back at the end, for the timing of inference without neighbours."""

MOST_SECONDS_FOR_PACE = 90.0

RunOne = Callable[[Job, Study, Budget, Path], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """file: the study's. out: for rows. work: for checkpoints. seconds: for everything, from `began`."""

    file: Path
    out: Path
    work: Path
    workers: int
    seconds: float
    began: float

    @property
    def rows(self) -> Path:
        """Folder of the rows."""
        return self.out / "jobs"

    @property
    def left(self) -> float:
        """Seconds left for jobs."""
        return self.seconds - LAST_SECONDS - (time.time() - self.began)


@dataclass(frozen=True)
class Shared:
    """What the processes share. todo: jobs, None at the end. told: what became of them. steps: of a job, 0 until known.

    together: where they wait for each other before the pace is measured. decided: set when `steps` is known.
    """

    todo: Any
    told: Any
    steps: Any
    together: Any
    decided: Any


def run_jobs(plan: Plan, jobs: Sequence[Job], budget: Budget, run_one: RunOne = run_job) -> tuple[int, int]:
    """Run the jobs that have no row yet; return how many have one now and how many failed.

    budget.steps 0: as many as the time allows, by a short trial of all processes at once. A job under way when the time
    is up is ended; its checkpoint stays and another call goes on from there. Raises ValueError when rows of other
    settings are there.
    """
    done = {row["job"]: row for row in read_rows(plan.rows)}
    budget = _as_before(budget, list(done.values()))
    open_jobs = [job for job in jobs if job.name not in done]
    if not open_jobs:
        return len(jobs), 0
    context = multiprocessing.get_context("spawn")
    workers = min(plan.workers, len(open_jobs))
    shared = Shared(
        context.Queue(), context.Queue(), context.Value("i", budget.steps), context.Barrier(workers), context.Event()
    )
    processes = [
        context.Process(target=_work, args=(plan, budget, shared, run_one), daemon=True) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        if budget.steps == 0:
            shared.steps.value = _affordable(_paces(plan, processes, shared.told), plan, open_jobs)
        print(f"{shared.steps.value} steps a job, {workers} processes, {len(open_jobs)} jobs", flush=True)
        for job in (*open_jobs, *(None for _ in processes)):
            shared.todo.put(job)
        shared.decided.set()
        failed = _collect(plan, processes, shared.told, open_jobs)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return len({row["job"] for row in read_rows(plan.rows)} & {job.name for job in jobs}), failed


def _collect(plan: Plan, processes: Sequence[Any], told: Any, jobs: Sequence[Job]) -> int:
    """Print what the workers tell until all is done or the time is up; return the number of failures.

    A process that ends without a word (a crash of a library, memory) fails its job; the others take over the rest.
    """
    silent, failed = {job.name for job in jobs}, 0
    while silent:
        alive = any(process.is_alive() for process in processes)  # asked first: what was told before the end is heard
        try:
            name, problem, seconds = told.get(timeout=1.0)
        except queue.Empty:
            if plan.left <= 0:
                print("time is up", flush=True)
                return failed
            if not alive:
                codes = ", ".join(str(process.exitcode) for process in processes)
                silent -= {row["job"] for row in read_rows(plan.rows)}  # done, but not told any more
                print(f"no result of {', '.join(sorted(silent))}; processes ended with {codes}", flush=True)
                return failed + len(silent)
            continue
        silent.discard(name)
        failed += bool(problem)
        print(f"{name:<24} {problem or 'done'}  {seconds:.1f} s, {plan.left:.0f} s left", flush=True)
    return failed


def _as_before(budget: Budget, rows: Sequence[dict[str, Any]]) -> Budget:
    """Return the budget with the steps of the rows that are there; ValueError where these were made otherwise."""
    found = {(row["steps"], row["batch"]) for row in rows}
    if not found:
        return budget
    steps, batch = found.pop()
    if found or batch != budget.batch or budget.steps not in (0, steps):
        raise ValueError(
            f"rows of {steps} steps of {batch} patches are there, asked for {budget.steps} of {budget.batch}; "
            "use another folder, or the same settings"
        )
    return replace(budget, steps=steps)


def _paces(plan: Plan, processes: Sequence[Any], told: Any) -> list[float]:
    """Return the seconds a step that each process has measured; RuntimeError when none could."""
    paces: list[float] = []
    waited_until = time.time() + min(MOST_SECONDS_FOR_PACE, plan.left / 2)
    while len(paces) < len(processes) and time.time() < waited_until:
        alive = any(process.is_alive() for process in processes)
        try:
            paces.append(told.get(timeout=1.0))
        except queue.Empty:
            if not alive:
                break
    if not paces:
        raise RuntimeError("no process measured how long a step takes; see their messages above, or give --steps")
    print(f"{statistics.median(paces) * 1000:.0f} ms a step with {len(paces)} processes at work", flush=True)
    return paces


def _affordable(paces: Sequence[float], plan: Plan, jobs: Sequence[Job]) -> int:
    """Return the steps that each job can have; paces: seconds a step, of each process while all were at work."""
    arms = arms_of(load_study(plan.file))
    rounds = sum(arms[job.arm].cost for job in jobs) / len(paces) + 0.5  # at the end not all are at work
    steps = int(KEPT_BACK * plan.left / (rounds * statistics.fmean(paces))) // 50 * 50
    return min(MOST_STEPS, max(FEWEST_STEPS, steps))


def _work(plan: Plan, budget: Budget, shared: Shared, run_one: RunOne) -> None:
    """Do jobs until there is none: the life of one process."""
    study = load_study(plan.file)
    if budget.steps == 0:
        with contextlib.suppress(threading.BrokenBarrierError):  # a process that did not start holds up no other
            shared.together.wait(timeout=MOST_SECONDS_FOR_PACE / 2)
        shared.told.put(_pace(study, budget))
    shared.decided.wait()
    budget = replace(budget, steps=shared.steps.value)
    while (job := shared.todo.get()) is not None:
        began = time.time()
        try:
            write_row(plan.rows, run_one(job, study, budget, plan.work))
            shared.told.put((job.name, "", time.time() - began))
        except Exception as error:  # the edge of a job: the others go on, and the run's exit code says so
            traceback.print_exc(file=sys.stderr)
            shared.told.put((job.name, f"failed: {type(error).__name__}: {error}", time.time() - began))


def _pace(study: Study, budget: Budget) -> float:
    """Return the seconds a step of the heaviest arm; a scan is scored too, so that jobs find everything warm."""
    arm = arms_of(study)["full"]
    model_settings, train_settings = settings_for(arm, 0, replace(budget, steps=PACE_STEPS), study)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            source_for(arm, study),
            model_settings,
            train_settings,
            folder,
            on_step=lambda *_: times.append(time.perf_counter()),
        )
        model, metadata = load_model(result.checkpoint, budget.device)
    score(model, metadata, study.held_out(arm.datasets)[:2], arm.classes, budget.device)
    half = len(times) // 2
    return (times[-1] - times[half]) / (len(times) - 1 - half)
