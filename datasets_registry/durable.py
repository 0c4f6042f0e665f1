"""Bytes that outlive a power cut: forced to the disk, and named only when they are whole."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path, *, follow_links: bool = True) -> None:
    """Force one file, or the entries of one folder, to the disk. OSError for a link unless `follow_links`."""
    descriptor = os.open(path, os.O_RDONLY if follow_links else os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
