"""Run every benchmark, or those named: `python -m benchmarks nsd head`."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = (
    "nsd",
    "metrics",
    "head",
    "window",
    "train_step",
    "gpu",
    "scan",
    "clean",
    "patch",
    "loader",
    "harmonise",
    "export",
    "catalog",
    "verify",
    "dask_workers",
    "overhead",
    "cohort_report",
    "twins",
    "self_training",
    "trouble",
    "report",
)

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            sys.exit(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
        import_module(f"benchmarks.{name}").main()
