from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource
import sys
import numpy as np
from imaging.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**26, dtype=np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**26, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_arrays_of_the_same_size_use_the_same_pages_again() -> None:
    """Eight arrays of 16,384 pages of 4 KiB (fewer where pages are huge) fault anew only where memory is not kept."""
    root = Path(__file__).parents[2]
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], cwd=root, capture_output=True, check=True).stdout)
        for how in ("kept", "as usual")
    }
    assert faults["kept"] <= faults["as usual"] / 4
