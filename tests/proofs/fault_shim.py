"""Build and steer `fault_shim.c`: make the n-th call that writes below a folder fail, tear, or end the process.

A process sees it when it starts with `LD_PRELOAD` set to what `built_shim` returns.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("fault_shim.c")


class Fault(IntEnum):
    """What happens at the call; the numbers are those of the C source."""

    COUNT = 0
    FAIL_ONCE = 1
    FAIL_FROM_THERE_ON = 2
    KILL_BEFORE = 3
    KILL_AFTER = 4
    KILL_TORN = 5
    """Half of a write is done; other calls are not."""


KILLS = (Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.KILL_TORN)


def built_shim(folder: Path) -> Path | None:
    """Return the library, compiled into `folder`; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "fault_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Shim:
    """The shim that this process was started with."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self._library.faults_disarm.restype = ctypes.c_long

    @contextmanager
    def armed(self, folder: Path, fault: Fault, at: int = 0, error: int = 0, log: Path | None = None) -> Iterator[None]:
        """Have `fault` come at call number `at` (from 1) below `folder` while the block runs.

        error: the errno of failing calls. log: a file that gets one line `<number> <kind> <path>` a call.
        """
        descriptor = -1 if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._library.faults_arm(str(folder).encode(), int(fault), at, error, descriptor)
        try:
            yield
        finally:
            self._library.faults_disarm()
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def fired(self) -> bool:
        """Whether the fault has come since the shim was armed last."""
        return bool(self._library.faults_fired())
