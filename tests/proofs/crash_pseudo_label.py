"""Proof: a pseudo-label run killed at any moment labels each scan once, predicts none again, ends as if never killed.

    PYTHONPATH=.:tests python tests/proofs/crash_pseudo_label.py --kills 20 --seed 1

kills real runs over a cohort of phantoms with SIGKILL: half of the kills at a random time, half at a random one of the
calls that write to the lake, its tables or the exports, before it, after it, or in the middle of it. After each kill
what is visible is read to the last byte; each run is started again until it ends, and then lake, tables and exports are
compared with those of a run that was never killed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fault_shim import KILLS, Fault, built_shim
from lake_equality import differences
from pseudo_label_cohort import ingest_cohort, write_scans, write_teacher
from real_pseudo_label import proof_settings
from visible import labels_of
from zygote import Order, Zygote, import_paths

from catalog.lake import Lake
from catalog.manifest import file_sha256
from catalog.tables import Tables
from catalog.verify import verify
from tasks.pseudo_label_report import PAGE

COHORT, SCANS = "clinic", 6

LIVES = 0.5
"""Longest life of an attempt that is to be killed, as a share of a whole run: so that one run sees several."""

AHEAD = 3
"""Scans that a kill may cost a prediction each: one in the network, one that waits, one being cleaned and committed."""


@dataclass
class Facts:
    """What a run that nobody disturbed left and took. exports: digest by path. labels: of every case, see `visible`."""

    workspace: Path
    labels: dict[str, set[tuple[str, str]]]
    exports: dict[str, str]
    calls: int
    seconds: float


@dataclass
class CrashReport:
    """What was done to the runs, and what they had to predict again."""

    kills: int = 0
    runs: int = 0
    predicted: int = 0
    again: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """Write the scans, ingest them into `folder/ingested/lake`, and write the model."""
    write_scans(folder / "raw", SCANS)
    ingest_cohort(folder / "raw", proof_settings(folder / "ingested"), COHORT)
    write_teacher(folder / "teacher.safetensors")


def order_of(folder: Path, name: str) -> Order:
    """Return the order to label the cohort in a fresh copy of the ingested lake, with a journal beside it."""
    workspace = folder / name
    shutil.copytree(folder / "ingested" / "lake", workspace / "lake")
    arguments = {
        "workspace": str(workspace),
        "cohort": COHORT,
        "model": str(folder / "teacher.safetensors"),
        "journal": str(folder / f"{name}.journal"),
    }
    return Order("real_pseudo_label:label_cohort", arguments, str(workspace))


def exports_of(workspace: Path) -> dict[str, str]:
    """Return the SHA-256 of every exported file by its path; the page, which tells times, is "page"."""
    root = workspace / "exports"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): "page" if path.name == PAGE else file_sha256(path) for path in files}


def undisturbed(folder: Path, zygote: Zygote) -> Facts:
    """Label once in a fresh process, once in a forked one that is timed; both must leave the same."""
    fresh, forked, log = order_of(folder, "fresh"), order_of(folder, "forked"), folder / "calls.log"
    code = f"import json, zygote as z; z.obey(z.Order(**json.loads({json.dumps(asdict(fresh))!r})))"
    subprocess.run([sys.executable, "-c", code], check=True, env=import_paths(), stdout=subprocess.DEVNULL)
    counted = replace(forked, fault=int(Fault.COUNT), log=str(log)) if zygote.preload is not None else forked
    started = time.monotonic()
    if zygote.run(counted) != 0:
        raise RuntimeError("the run that nobody disturbed failed; see its traceback above")
    seconds = time.monotonic() - started
    unequal = unlike(folder / "fresh", folder / "forked")
    if unequal:
        raise RuntimeError(f"a fresh and a forked process differ in {len(unequal)} places, first: {unequal[0]}")
    calls = len(log.read_text().splitlines()) if zygote.preload is not None else 0
    lake = folder / "fresh" / "lake"
    return Facts(folder / "fresh", labels_of(lake), exports_of(folder / "fresh"), calls, seconds)


def unlike(one: Path, other: Path) -> list[str]:
    """Return what differs between two workspaces, in lake, tables or exports, one sentence each."""
    first, second = exports_of(one), exports_of(other)
    exports = [
        f"exports/{name}: {first.get(name, 'no file')} and {second.get(name, 'no file')}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]
    return differences(one / "lake", other / "lake") + exports


def prove(kills: int, seed: int, folder: Path) -> CrashReport:
    """Kill runs `kills` times and return what was found; `faults` is empty when all held."""
    report, chance = CrashReport(), random.Random(seed)
    prepare(folder)
    with Zygote("real_pseudo_label", preload=built_shim(folder)) as zygote:
        facts = undisturbed(folder, zygote)
        while report.kills < kills:
            name = f"run_{report.runs}"
            _one_run(zygote, folder, name, facts, kills, report, chance)
            report.runs += 1
            report.faults += [f"{name}, at its end: {one}" for one in unlike(facts.workspace, folder / name)]
            shutil.rmtree(folder / name)
    return report


def _one_run(
    zygote: Zygote, folder: Path, name: str, facts: Facts, kills: int, report: CrashReport, chance: random.Random
) -> None:
    order = order_of(folder, name)
    lake, journal = Path(order.lake) / "lake", Path(order.arguments["journal"])
    labelled: set[str] = set()
    while True:
        journal.write_text("")
        if report.kills < kills:
            code, how = _killed_attempt(zygote, order, facts, chance, counted=facts.calls > 0 and report.kills % 2 == 1)
        else:
            code, how = zygote.run(order), "undisturbed"
        place = f"{name}, kill {report.kills + 1} ({how})"
        predicted = [line.split()[1] for line in journal.read_text().splitlines()]
        report.predicted += len(predicted)
        if twice := labelled.intersection(predicted):
            report.faults.append(f"{place}: {sorted(twice)} were predicted again after their commit")
        if len(set(predicted)) != len(predicted):
            report.faults.append(f"{place}: {predicted} holds a case twice")
        if code == 0:
            return
        if code != -signal.SIGKILL:
            raise RuntimeError(f"{place}: the run failed by itself, exit code {code}; see its traceback above")
        report.kills += 1
        kind = how.split(" ")[0]
        report.by_kind[kind] = report.by_kind.get(kind, 0) + 1
        report.faults += [f"{place}: {one}" for one in _half(lake, facts)]
        now = {case for case, found in labels_of(lake).items() if found}
        if lost := labelled - now:
            report.faults.append(f"{place}: labels of {sorted(lost)} were visible before and are not any more")
        wasted = set(predicted) - now
        report.again += len(wasted)
        if len(wasted) > AHEAD:
            report.faults.append(f"{place}: {sorted(wasted)} are to be predicted again, expected {AHEAD} at most")
        labelled = now


def _killed_attempt(
    zygote: Zygote, order: Order, facts: Facts, chance: random.Random, *, counted: bool
) -> tuple[int, str]:
    """Run an attempt that is to be killed; return its exit code (0: it was quicker) and how it was to die."""
    if counted:
        fault, at = chance.choice(KILLS), chance.randint(1, int(facts.calls * LIVES))
        return zygote.run_killed(order, fault, at), f"{fault.name.lower()} call {at}"
    seconds = chance.uniform(0, facts.seconds * LIVES)
    return zygote.run_for(order, seconds), f"after {seconds:.2f} s"


def _half(lake: Path, facts: Facts) -> list[str]:
    """Return what is visible and not whole: labels of a case that lack some, files that are not what rows say."""
    seen = labels_of(lake)
    found = [
        f"{case}: labels {labels ^ facts.labels[case]} too few or too many"
        for case, labels in seen.items()
        if labels and labels != facts.labels[case]
    ]
    stored, tables = Lake(lake), Tables(lake)
    found += [str(damage) for damage in verify(tables, stored, read_data=True)]
    for _, row in tables.labels().drop_duplicates(["case_id", "annotation"]).iterrows():
        stored.open_bits(row, row["annotation"]).read()
    return found


def main() -> int:
    """Run the proof from the command line; the exit code says whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    print(f"{chosen.kills} kills, seed {chosen.seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = prove(chosen.kills, chosen.seed, Path(folder))
    print(
        f"{report.kills} kills {report.by_kind} in {report.runs} runs of {SCANS} scans, "
        f"{report.predicted} predictions, {report.again} of them lost before their commit, "
        f"{time.monotonic() - started:.0f} s, faults: {len(report.faults)}"
    )
    for fault in report.faults:
        print(fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
