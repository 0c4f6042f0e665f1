"""Ingests in processes that start at once: this one has imported everything and forks one for each order.

Run as a program; orders come as JSON lines on stdin (`Order`), answers go to stdout: the process id, then how it ended.
It starts no thread of Rust's before it forks, so a child is like a fresh process and may use the Rust codec pipeline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zarrs  # noqa: F401  loaded once, for all children
from fault_shim import Fault, Shim

from catalog import layout
from tasks import ingest, ingest_case
from tasks.settings import Settings

SPACING_MM = (12.0, 12.0, 12.0)


@dataclass(frozen=True)
class Order:
    """One run of an ingest: the raw folder with one folder a data set, the lake, the sets in order.

    journal: a file outside of the lake that gets one line when work on a case begins and one when a case is done.
    fault, at, log: see `Shim.armed`; needs the shim.
    """

    raw: str
    lake: str
    sets: list[str]
    journal: str
    fault: int | None = None
    at: int = 0
    log: str | None = None


def ingest_sets(order: Order) -> None:
    """Ingest every set as the flow does, and note in the journal what is done."""
    settings = Settings(lake_root=Path(order.lake), spacing_mm=SPACING_MM)
    journal = os.open(order.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(*words: str) -> None:
        os.write(journal, (" ".join(words) + "\n").encode())

    def noted_harmonise(real: Callable[..., Any]) -> Callable[..., Any]:
        def harmonise(raw: Any, card: Any, spacing_mm: Any, files: Any) -> Any:
            note("begin", files.where)
            return real(raw, card, spacing_mm, files)

        return harmonise

    ingest_case.harmonise = noted_harmonise(ingest_case.harmonise)  # type: ignore[attr-defined]
    for name in order.sets:
        listing = ingest.list_source(name, Path(order.raw) / name, settings)
        for outcome in ingest.ingest_batch(listing.requests, settings):
            note(outcome.outcome, outcome.case_id)


def _obey(order: Order) -> None:
    sys.stdout = sys.stderr  # progress must not get among the answers
    layout._forked.clear()  # no Rust thread was running, so none is missing here
    log = None if order.log is None else Path(order.log)
    faults = (
        nullcontext() if order.fault is None else Shim().armed(Path(order.lake), Fault(order.fault), order.at, log=log)
    )
    with faults:
        ingest_sets(order)


def main() -> None:
    """Fork a child for every order, and tell how it ended."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            try:
                _obey(order)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Zygote:
    """The program above, running. preload: the fault shim, None to do without."""

    def __init__(self, preload: Path | None = None) -> None:
        root = Path(__file__).parents[2]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join([str(root), str(Path(__file__).parent)])
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        command = [sys.executable, str(Path(__file__))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, order: Order) -> int:
        """Start an ingest and return its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Wait for the ingest started last; return its exit code, minus the signal for one that was killed."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
