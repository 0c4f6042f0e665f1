"""One run a GPU: a lock that the system takes away from a process that ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tasks.notices import tell

_held: dict[str, int] = {}
_guard = threading.RLock()


@contextmanager
def gpu_lock(device: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the GPU that PyTorch calls `device` for the block; wait, and say so, while another process does.

    A CPU needs no lock. The lock is a file of the machine, named after the card and not after its number, which
    CUDA_VISIBLE_DEVICES changes; a killed process leaves none behind. Blocks within each other hold it once. folder: of
    the lock files, the system's temporary one by default.
    """
    kind = torch.device(device)
    if kind.type != "cuda":
        yield
        return
    card = str(torch.cuda.get_device_properties(kind).uuid)
    with named_lock(f"gpu-{card}", f"GPU {card}", folder):
        yield


@contextmanager
def named_lock(name: str, what: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock `name` of this machine for the block; see `gpu_lock`. what: it stands for, as told to who waits."""
    with _guard:
        if _held.get(name, 0):
            _held[name] += 1
            mine = None
        else:
            mine = _acquire((folder or Path(tempfile.gettempdir())) / f"ctfactory-{name}.lock", what)
            _held[name] = 1
    try:
        yield
    finally:
        with _guard:
            _held[name] -= 1
            if mine is not None:
                os.close(mine)


def _acquire(path: Path, what: str) -> int:
    descriptor, ours = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            tell(f"{what} is in use by process {holder}; waiting until that has ended")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if ours:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> tuple[int, bool]:
    """Return a descriptor, and whether it may be written to: a lock that another user made can only be read."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644), True
    except PermissionError:
        return os.open(path, os.O_RDONLY), False
