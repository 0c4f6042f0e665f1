"""Memory for arrays that come and go: kept by the process, not handed back to the system and taken anew."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from functools import cache
from pathlib import Path

KEPT_BYTES = 2**30
"""Freed memory that is kept, and the size from which an array still gets pages of its own."""

_AHEAD_BYTES = 2**26
# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


@cache
def keep_freed_memory() -> bool:
    """Let the C library of this process keep what arrays free; return whether it could (glibc can).

    By default each large array gets fresh pages, which the kernel fills with zeros at their first touch: two fifths of
    the CPU time of an ingest (docs/design/0007-harmonise-speed.md). The process then stays as large as it once was.
    """
    return limit_memory(own_pages=KEPT_BYTES, kept=KEPT_BYTES, ahead=_AHEAD_BYTES)


def peak_bytes() -> int:
    """Return the largest resident size this process had so far, in bytes.

    Linux hands `ru_maxrss` on to whatever a process starts, so a small child of a large parent would seem large; its
    own peak stands in /proc.
    """
    try:
        own = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        own = None
    if own is not None:
        return int(own[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_memory(*, own_pages: int, kept: int, ahead: int) -> bool:
    """Set what the C library does with memory; False where it takes no such settings.

    own_pages: bytes from which an array gets pages of its own. kept: bytes that are kept when freed. ahead: bytes
    taken at once when more is needed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    limits = {_MMAP_THRESHOLD: own_pages, _TRIM_THRESHOLD: kept, _TOP_PAD: ahead}
    return all(mallopt(parameter, limit) == 1 for parameter, limit in limits.items())
