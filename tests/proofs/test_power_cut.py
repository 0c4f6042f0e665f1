"""Nothing that a writer reported is left to the system's memory: all of it was forced to the disk before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_shim import Fault, built_shim
from lake_machine import order_of
from power_cut import not_forced
from zygote import Zygote


def test_all_that_steps_leave_was_forced_to_the_disk(tmp_path: Path) -> None:
    shim = built_shim(tmp_path)
    if shim is None:
        pytest.skip("no C compiler (gcc or cc), which builds the library that sees what is written")
    root, log = tmp_path / "lake", tmp_path / "calls.log"
    steps: list[tuple[str, list[Any]]] = [
        ("ingest", ["a", 1]),
        ("ingest", ["a", 2]),
        ("relabel", ["a", 2, "pseudo-a"]),
        ("withdraw", ["a"]),
        ("compact", []),
        ("store", ["b", 1]),
        ("gc", []),
    ]
    with Zygote("lake_steps", preload=shim) as zygote:
        for step, arguments in steps:
            order = replace(order_of(root, step, arguments), fault=int(Fault.COUNT), log=str(log))
            assert zygote.run(order) == 0
            assert not_forced(log.read_text().splitlines(), root) == [], (step, arguments)


def test_what_was_not_forced_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("kept", "torn", "unnamed"):
        (tmp_path / "a" / name).write_text("x")
    log = [
        "1 mkdir /a",
        "2 fsync ",
        "3 open /a/kept.partial",
        "4 write /a/kept.partial",
        "5 fsync /a/kept.partial",
        "6 rename /a/kept /a/kept.partial",
        "7 open /a/torn",
        "8 write /a/torn",
        "9 fsync /a",
        "10 open /a/unnamed",
        "11 write /a/unnamed",
        "12 fsync /a/unnamed",
        "13 open /a/removed",
    ]
    assert not_forced(log, tmp_path) == ["content of /a/torn", "name /a/unnamed"]
