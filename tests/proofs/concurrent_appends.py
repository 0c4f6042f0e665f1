"""Proof: writers, readers, compaction and garbage collection at once; nothing lost, doubled or half seen.

    PYTHONPATH=tests python tests/proofs/concurrent_appends.py --writers 8 --appends 50

Every process writes cases with arrays and labels of its own, and one in four that all the others write too. Readers
look all the while: a case seen has all its labels at that version and its voxels can be read, and no case goes away.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from lake_steps import SHAPE, SHIPPED, Writer

from catalog.garbage import collect_garbage
from catalog.verify import verify

VERSION = 2
SHARED_EVERY = 4
ORPHANS = 6
GRACE = timedelta(minutes=10)
PATIENCE_S = 900


@dataclass
class Report:
    """What was done, and every fault found. committed: commits that said they were the first of their case."""

    cases: int = 0
    committed: int = 0
    looks: int = 0
    compactions: int = 0
    collected: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def case_of(writer: int, number: int) -> str:
    """Return the case of one append: of the writer alone, or for one in `SHARED_EVERY` of all writers."""
    return f"all_{number}" if number % SHARED_EVERY == 0 else f"own_{writer}_{number}"


def write(root: str, writer: int, appends: int) -> int:
    """Append cases; return how many commits were the first of their case."""
    steps = Writer(root)
    return sum(steps.write_and_commit(case_of(writer, number), VERSION) for number in range(appends))


def read(root: str, reader: int, done: Any) -> dict[str, Any]:
    """Look until `done`, and once more; return the number of looks and what was wrong in them."""
    steps, rng = Writer(root), random.Random(reader)
    seen: set[str] = set()
    looks, faults = 0, []
    last = False
    while not last:
        last = done.is_set()
        versions = steps.tables.versions()
        cases = steps.tables.cases(at_versions=versions)
        labels = steps.tables.labels(at_versions=versions, columns=["class_name"])
        now = set(cases["case_id"])
        if gone := seen - now:
            faults.append(f"reader {reader}: {sorted(gone)[:3]} were seen before and are gone")
        if len(now) != len(cases):
            faults.append(f"reader {reader}: {len(cases)} rows of {len(now)} cases")
        per_case = labels.groupby("case_id")["class_name"].agg(lambda names: tuple(sorted(names))).to_dict()
        wrong = [name for name in now if per_case.get(name) != SHIPPED[VERSION]]
        if wrong:
            faults.append(f"reader {reader}: {wrong[0]} has labels {per_case.get(wrong[0])}, of {len(wrong)} such")
        if len(cases):
            row = dict(cases.iloc[rng.randrange(len(cases))])
            steps.lake.read_patch(row, (0, 0, 0), SHAPE)  # raises where a file is gone or torn
        seen, looks = now, looks + 1
    return {"looks": looks, "faults": faults}


def tidy(root: str, done: Any) -> dict[str, int]:
    """Join files and collect garbage until `done`; return how often, and how many orphans were removed."""
    steps, rounds, collected = Writer(root), 0, 0
    while not done.is_set():
        steps.compact()
        collected += len(collect_garbage(steps.tables, steps.lake, GRACE))
        rounds += 1
        time.sleep(0.2)
    return {"compactions": rounds, "collected": collected}


def _run(task: Callable[..., Any], arguments: tuple[Any, ...], answers: Any) -> None:
    try:
        answers.put((task.__name__, task(*arguments)))
    except BaseException as error:
        answers.put((task.__name__, f"{type(error).__name__}: {error}"))


def prove(writers: int, appends: int, readers: int, folder: Path) -> Report:
    """Run all at once on a fresh lake in `folder` and return what was done and found."""
    _leave_orphans(folder)
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    done, answers = context.Event(), context.Queue()
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        *((write, (str(folder), writer, appends)) for writer in range(writers)),
        *((read, (str(folder), reader, done)) for reader in range(readers)),
        (tidy, (str(folder), done)),
    ]
    processes = [context.Process(target=_run, args=(task, arguments, answers)) for task, arguments in tasks]
    for process in processes:
        process.start()
    report = Report()
    writing = writers
    for _ in processes:
        name, answer = answers.get(timeout=PATIENCE_S)
        writing -= name == "write"
        if writing == 0:
            done.set()
        _note(report, name, answer)
    for process in processes:
        process.join()
    report.seconds = time.monotonic() - started
    _settle(report, writers, appends, folder)
    return report


def _note(report: Report, name: str, answer: Any) -> None:
    if isinstance(answer, str):
        report.faults.append(f"{name} ended with {answer}")
    elif name == "write":
        report.committed += answer
    elif name == "read":
        report.looks += answer["looks"]
        report.faults += answer["faults"]
    else:
        report.compactions += answer["compactions"]
        report.collected += answer["collected"]


def _leave_orphans(folder: Path) -> None:
    """Store cases that nobody commits, as of long ago."""
    steps = Writer(folder)
    steps.tables.versions()
    for number in range(ORPHANS):
        steps.store(f"orphan_{number}", VERSION)
    old = time.time() - 2 * GRACE.total_seconds()
    for path in (folder / "volumes").rglob("*"):
        os.utime(path, (old, old))


def _settle(report: Report, writers: int, appends: int, folder: Path) -> None:
    """Compare what is there in the end with what was appended."""
    steps = Writer(folder)
    expected = {f"kits/{case_of(writer, number)}" for writer in range(writers) for number in range(appends)}
    history = steps.tables.cases(history=True)
    labels = steps.tables.labels(history=True, columns=["class_name"])
    report.cases = len(history)
    found = history["case_id"].tolist()
    if lost := expected - set(found):
        report.faults.append(f"lost: {len(lost)}, e.g. {min(lost)}")
    if len(found) != len(expected) or set(found) - expected:
        report.faults.append(f"{len(found)} case rows, expected {len(expected)}, each once")
    if report.committed != len(expected):
        report.faults.append(f"{report.committed} commits said to be the first of {len(expected)} cases")
    if len(labels) != len(expected) * len(SHIPPED[VERSION]):
        report.faults.append(f"{len(labels)} label rows, expected {len(SHIPPED[VERSION])} for each case")
    if report.collected != ORPHANS:
        report.faults.append(f"{report.collected} orphans collected, expected {ORPHANS}")
    report.faults += [str(damage) for damage in verify(steps.tables, steps.lake)]


def main() -> int:
    """Run the proof from the command line; the exit code says whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--appends", type=int, default=50)
    parser.add_argument("--readers", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = prove(chosen.writers, chosen.appends, chosen.readers, Path(folder))
    print(
        f"{chosen.writers} processes x {chosen.appends} appends: {report.cases} cases, {report.looks} looks, "
        f"{report.compactions} compactions, {report.collected} orphans collected, {report.seconds:.0f} s, "
        f"faults: {len(report.faults)}"
    )
    for fault in report.faults:
        print(fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
