"""Proof: a promotion killed at any moment leaves the old champion or the new one, and the next one finishes it.

    PYTHONPATH=tests python tests/proofs/crash_promotion.py --kills 100 --seed 1

promotes two versions in turn (real Delta tables, a SQLite MLflow) and kills with SIGKILL: half of the kills at a random
time, half at a random call that writes below the workspace, before it, after it, or in the middle of it. After each
kill the alias is looked at as a reader does; then the promotion is run again to its end.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from fault_shim import KILLS, Fault, built_shim
from promotion_line import make_line, passing
from zygote import Order, Zygote

from tasks.champion import Mover, moves, settle
from tasks.promote import promote_version
from tasks.registry import CHAMPION, ModelVersion, alias_version, fetch_checkpoint, model_version
from tasks.settings import Settings


@dataclass
class PromotionReport:
    """How often promotions were killed, in how many the champion had moved already, and what did not hold."""

    kills: int = 0
    moved: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def promote_in_child(workspace: str, gates: str, uri: str) -> None:
    """Promote one version, as a process of its own does; anything but a promotion is an error."""
    settings = Settings(workspace=Path(workspace), gates=gates, operator="tester")
    promotion = promote_version(model_version(uri, settings), settings, Mover("tester", "killed perhaps"))
    if not promotion.promoted:
        raise RuntimeError(promotion.reason)


def order_of(settings: Settings, to: ModelVersion) -> Order:
    """Return the order to promote `to`; writes anywhere in the workspace count."""
    arguments = {"workspace": str(settings.workspace), "gates": settings.gates, "uri": to.uri}
    return Order("crash_promotion:promote_in_child", arguments, str(settings.workspace))


def prove(kills: int, seed: int, folder: Path) -> PromotionReport:
    """Kill promotions `kills` times and return what was found; `faults` is empty when all held."""
    report, chance = PromotionReport(), random.Random(seed)
    settings = make_line(folder)
    versions = [passing(settings, seed=number) for number in range(2)]
    promote_version(versions[0], settings, Mover("tester", "the first"))
    with Zygote("crash_promotion", preload=built_shim(folder)) as zygote:
        calls, seconds = _undisturbed(zygote, settings, versions[1], folder / "calls.log")
        turn = 0
        while report.kills < kills:
            _one_promotion(zygote, settings, versions[turn % 2], calls, seconds, report, chance)
            turn += 1
    return report


def _undisturbed(zygote: Zygote, settings: Settings, to: ModelVersion, log: Path) -> tuple[int, float]:
    """Promote once; return the calls that write, 0 without the shim, and the seconds it took."""
    order, started = order_of(settings, to), time.monotonic()
    counted = replace(order, fault=int(Fault.COUNT), log=str(log)) if zygote.preload is not None else order
    if zygote.run(counted) != 0:
        raise RuntimeError("the promotion that nobody disturbed failed; see its traceback above")
    calls = len(log.read_text().splitlines()) if zygote.preload is not None else 0
    return calls, time.monotonic() - started


def _one_promotion(
    zygote: Zygote,
    settings: Settings,
    to: ModelVersion,
    calls: int,
    seconds: float,
    report: PromotionReport,
    chance: random.Random,
) -> None:
    """Kill a promotion of `to` once, look, and run it again to its end."""
    before, rows = _champion(settings), _numbered(settings)
    order = order_of(settings, to)
    if calls and report.kills % 2:
        fault, at = chance.choice(KILLS), chance.randint(1, calls)
        code, how = zygote.run_killed(order, fault, at), f"{fault.name.lower()} call {at} of {calls}"
    else:
        life = chance.uniform(0, seconds)
        code, how = zygote.run_for(order, life), f"after {life:.2f} s"
    place = f"kill {report.kills + 1} ({how})"
    if code not in (0, -signal.SIGKILL):
        report.faults.append(f"{place}: it failed by itself, exit code {code}")
    if code == -signal.SIGKILL:
        report.kills += 1
        kind = how.split(" ")[0]
        report.by_kind[kind] = report.by_kind.get(kind, 0) + 1
    now = _champion(settings)
    if now not in (before, to.version):
        report.faults.append(f"{place}: champion is {now}, expected {before} or {to.version}")
    else:
        fetch_checkpoint(model_version(CHAMPION, settings), settings)
    report.moved += int(now == to.version)
    if zygote.run(order) != 0:
        report.faults.append(f"{place}: the promotion after it failed")
    standing = settle(settings)
    found = [None if one is None else one.version for one in (standing.champion, standing.previous)]
    if found != [to.version, before]:
        report.faults.append(f"{place}: at the end champion and previous are {found}, expected {[to.version, before]}")
    if _numbered(settings) != rows + 1:
        report.faults.append(f"{place}: {_numbered(settings) - rows} moves were written down, expected one")


def _champion(settings: Settings) -> int | None:
    found = alias_version(CHAMPION, settings)
    return None if found is None else found.version


def _numbered(settings: Settings) -> int:
    return int((moves(settings)["move"] == "promoted").sum())


def main() -> int:
    """Run the proof from the command line; the exit code says whether it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    print(f"{chosen.kills} kills, seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = prove(chosen.kills, chosen.seed, Path(folder))
    print(f"{report.kills} kills {report.by_kind}, {report.moved} after the move, faults: {len(report.faults)}")
    for fault in report.faults:
        print(fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
