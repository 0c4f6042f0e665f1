"""One error of the disk at one write of each kind in an ingest; the long form is `io_faults.py` itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fault_shim import built_shim
from zygote import import_paths


def test_a_failing_disk_is_named_and_shows_nothing_half_and_the_ingest_goes_on(tmp_path: Path) -> None:
    shim = built_shim(tmp_path)
    if shim is None:
        pytest.skip("no C compiler (gcc or cc), which builds the library that makes writes fail")
    lakes = tmp_path / "lakes"
    lakes.mkdir()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("io_faults.py")), "--folder", str(lakes), "--each-kind"],
        env={**import_paths(), "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["faults"] == []
    assert report["tried"] > 50
    # What an ingest may get over: a folder that is there already cannot be made, and need not be.
    assert all("mkdir" in one for one in report["tolerated"]), report["tolerated"]
