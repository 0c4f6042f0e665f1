"""The learning study: what partial labels, one model for all, later classes and weighted sampling do, on miniatures.

`prepare FILE` makes the scans; `run FILE --out DIR` trains and scores; `report DIR` writes `docs/learning.md` and its
picture from the rows. `run` needs none of the lake's libraries.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three commands; return its exit code."""
    options = _options().parse_args(arguments)
    code: int = options.command(options)
    return code


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="make the scans (minutes)")
    prepare.add_argument("file", type=Path)
    prepare.add_argument("--training", type=int, default=15, help="scans of each set to train on")
    prepare.add_argument("--held-out", type=int, default=5, help="scans of each set to score on")
    prepare.add_argument("--rare", type=int, default=3, help="scans to train on of the set at the end of the long tail")
    prepare.set_defaults(command=_prepare)
    run = commands.add_parser("run", help="train and score; what is done already is kept")
    run.add_argument("file", type=Path)
    run.add_argument("--out", type=Path, required=True, help="folder of the rows")
    run.add_argument("--work", type=Path, help="folder of the checkpoints; default OUT/work")
    run.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    run.add_argument("--steps", help="optimiser steps of every job, or `auto`: as many as --seconds allows; 600 on cpu")
    run.add_argument("--batch", type=int, help="patches a step; default 2 on cpu, 4 on cuda")
    run.add_argument("--seconds", type=float, default=24 * 3600.0, help="end by then, keeping what is done")
    run.add_argument("--workers", type=int, help="processes; default 1 on cpu, 10 on cuda")
    run.add_argument("--threads", type=int, help="CPU threads of each; default 2 on cpu, 1 on cuda")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--only", nargs="+", help="names of arms, such as `partial` or `tail even`; default all")
    run.set_defaults(command=_run)
    report = commands.add_parser("report", help="write docs/learning.md and its picture")
    report.add_argument(
        "folder", type=Path, nargs="?", help="of the rows; default: the rows kept in docs/learning.json"
    )
    report.add_argument("--docs", type=Path, default=ROOT / "docs")
    report.set_defaults(command=_report)
    return parser


# Each command imports its own part late: preparing needs the readers' libraries, which a GPU machine may lack.
def _prepare(options: argparse.Namespace) -> int:
    made = import_module("benchmarks.learning_prepare").prepare(
        options.file, training=options.training, held_out=options.held_out, rare=options.rare
    )
    print(f"{options.file}: {len(made.scans)} scans, {options.file.stat().st_size / 2**20:.1f} MiB")
    return 0


def _run(options: argparse.Namespace) -> int:
    began = time.time()
    data, jobs, pool, timing = (import_module(f"benchmarks.learning_{n}") for n in ("data", "jobs", "pool", "timing"))
    on_cpu = options.device == "cpu"
    steps = options.steps or ("600" if on_cpu else "auto")
    budget = jobs.Budget(
        0 if steps == "auto" else int(steps),
        options.batch or (2 if on_cpu else 4),
        options.device,
        options.threads or (2 if on_cpu else 1),
    )
    workers = options.workers or (1 if on_cpu else 10)
    work = options.work or options.out / "work"
    plan = pool.Plan(options.file, options.out, work, workers, options.seconds, began)
    study = data.load_study(options.file)
    wanted = [job for job in jobs.all_jobs(study, options.seeds) if job.arm in (options.only or jobs.arms_of(study))]
    if unknown := sorted(set(options.only or []) - set(jobs.arms_of(study))):
        sys.exit(f"--only: no arm {', '.join(unknown)}; there are {', '.join(jobs.arms_of(study))}")
    done, failed = pool.run_jobs(plan, wanted, budget)
    timing.time_inference(plan, study, options.seeds, options.device)
    print(f"{done} of {len(wanted)} jobs done, {failed} failed, {time.time() - began:.0f} s")
    return 0 if done == len(wanted) else 1


def _report(options: argparse.Namespace) -> int:
    for path in import_module("benchmarks.learning_report").write_report(options.folder, options.docs):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
