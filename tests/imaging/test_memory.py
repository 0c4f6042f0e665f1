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


ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_arrays_of_the_same_size_use_the_same_pages_again() -> None:
    """Eight arrays of 16,384 pages of 4 KiB (fewer where pages are huge) fault anew only where memory is not kept."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], cwd=ROOT, capture_output=True, check=True).stdout)
        for how in ("kept", "as usual")
    }
    assert faults["kept"] <= faults["as usual"] / 4


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's own peak")
def test_the_peak_of_a_child_is_not_that_of_its_parent() -> None:
    """A process that holds 256 MiB starts another that holds next to nothing, and has 64 MiB itself for a moment."""
    child = "import numpy as np; from imaging.memory import peak_bytes; np.ones(2**26, np.uint8); print(peak_bytes())"
    held = f"import subprocess, sys; x = b'1' * 2**28; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", held], cwd=ROOT, capture_output=True, check=True)
    assert 2**26 < int(done.stdout) < 2**28
