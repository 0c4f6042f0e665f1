"""Proof: a full disk, a failing one or a lost permission at any write of an ingest is named, and shows nothing half.

    PYTHONPATH=tests python tests/proofs/io_faults.py [--each-kind]

ingests one miniature with labels again and again, each time with an error at another of the calls that write (in
Python or in a Rust library): ENOSPC, which stays, EIO once, EACCES, which stays. Each time the error must name a path
and bytes, nothing half-written may be visible, and the same ingest, in the same process, must go on when the fault is
gone and leave what an undisturbed one leaves. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fault_shim import Fault, Shim, built_shim
from lake_equality import differences
from real_ingest import SPACING_MM
from visible import half_written, labels_of
from zygote import import_paths

from datasets_registry.miniatures import write_miniature
from tasks.ingest import ingest_batch, list_source
from tasks.settings import Settings

ERRORS = {
    errno.ENOSPC: Fault.FAIL_FROM_THERE_ON,
    errno.EIO: Fault.FAIL_ONCE,
    errno.EACCES: Fault.FAIL_FROM_THERE_ON,
}


@dataclass
class FaultReport:
    """What was tried, and what did not hold. tolerated: errors that the ingest got over, and must have made good."""

    calls: int = 0
    tried: int = 0
    not_reached: int = 0
    tolerated: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def ingest_one(raw: Path, lake: Path) -> None:
    """Ingest the one case in `raw`."""
    settings = Settings(lake_root=lake, spacing_mm=SPACING_MM)
    ingest_batch(list_source("btcv", raw, settings).requests, settings)


def words_of(error: BaseException) -> str:
    """Return all that a traceback of `error` shows as messages: its own, its notes, those of its causes."""
    words, at = [], error
    while at is not None:
        words += [f"{type(at).__name__}: {at}", *getattr(at, "__notes__", [])]
        at = at.__cause__ or at.__context__
    return "; ".join(words)


def kind_of(line: str) -> str:
    """Return what a line of the shim's log has in common with its like: random names and numbers left out."""
    _, kind, *path = line.rstrip("\n").split(" ")
    name = path[0] if path else ""
    name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27,}|[0-9a-f]{12,}", "#", name)
    return f"{kind} {re.sub(r'/[012](?=/|$)', '/N', name.replace('/labels/shipped', ''))}"


def chosen(lines: list[str], each_kind: bool) -> Iterator[tuple[int, int]]:
    """Yield (call, errno) to try: all three errors at every call, or one error at one call of each kind."""
    kinds: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.split(" ")[1] == "remove":
            continue
        kind = kind_of(line)
        if not each_kind:
            yield from ((number, error) for error in ERRORS)
        elif kind not in kinds:
            kinds[kind] = number
            yield number, list(ERRORS)[len(kinds) % len(ERRORS)]


def try_fault(shim: Shim, raw: Path, lake: Path, clean: Path, at: int, error: int, report: FaultReport) -> None:
    """Ingest into the new folder `lake` with `error` at call `at`, then once more without, and note what fails."""
    words = ""
    log = lake.with_suffix(".log")
    with shim.armed(lake, ERRORS[error], at, error, log):
        try:
            ingest_one(raw, lake)
        except Exception as caught:
            words = words_of(caught)
    lines = log.read_text().splitlines()
    if len(lines) < at:  # two threads write side by side and may have made one folder less
        report.not_reached += 1
        return
    report.tried += 1
    place = f"{errno.errorcode[error]} at call {at} ({kind_of(lines[at - 1])})"
    if words:
        for what, pattern in {
            "path": re.escape(str(lake)), "bytes": r"\d+ bytes", "cause": re.escape(os.strerror(error)),
        }.items():  # fmt: skip
            if not re.search(pattern, words):
                report.faults.append(f"{place}: no {what} in the message: {words[:400]}")
        report.faults += [f"{place}: visible: {one}" for one in half_written(lake, labels_of(clean))]
        ingest_one(raw, lake)
    else:
        report.tolerated.append(place)
    report.faults += [f"{place}: in the end: {one}" for one in differences(clean, lake)]


def prove(folder: Path, each_kind: bool) -> FaultReport:
    """Try the faults in lakes below the empty `folder`."""
    raw = folder / "raw"
    write_miniature("btcv", raw, cases=1, seed=3, truth_folder=folder / "truth", spacing_mm=SPACING_MM)
    shim, log, report = Shim(), folder / "calls.log", FaultReport()
    ingest_one(raw, folder / "clean")
    with shim.armed(folder / "counted", Fault.COUNT, log=log):
        ingest_one(raw, folder / "counted")
    lines = log.read_text().splitlines()
    report.calls = len(lines)
    report.faults += differences(folder / "clean", folder / "counted")
    for at, error in chosen(lines, each_kind):
        lake = folder / f"lake_{at}_{errno.errorcode[error]}"
        try_fault(shim, raw, lake, folder / "clean", at, error, report)
        shutil.rmtree(lake, ignore_errors=True)
    return report


def prove_preloaded(folder: Path, each_kind: bool) -> dict[str, Any] | None:
    """Do the same in a process that starts with the shim; return the report, None without a C compiler."""
    shim = built_shim(folder)
    if shim is None:
        return None
    (folder / "lakes").mkdir()
    command = [sys.executable, str(Path(__file__)), "--folder", str(folder / "lakes")]
    environment = {**import_paths(), "LD_PRELOAD": str(shim)}
    flags = ["--each-kind"] if each_kind else []
    done = subprocess.run([*command, *flags], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    """Run the proof from the command line; the exit code says whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each-kind", action="store_true", help="one error at one call of each kind, not all at each")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # in the process that has the shim
    arguments = parser.parse_args()
    if arguments.folder is not None:
        with redirect_stdout(sys.stderr):
            report = prove(arguments.folder.absolute(), arguments.each_kind)
        print(json.dumps(asdict(report)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = prove_preloaded(Path(folder), arguments.each_kind)
    if found is None:
        print("io_faults: found no C compiler (gcc or cc), which builds the library that makes writes fail")
        return 2
    print(json.dumps(found, indent=1))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
