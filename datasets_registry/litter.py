"""Files that an operating system leaves in folders and archives, and that belong to no data set."""

from __future__ import annotations

from pathlib import PurePath

LITTER_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}


def is_litter(path: PurePath) -> bool:
    """Tell whether an operating system left the file behind (AppleDouble `._*`, `__MACOSX`, folder settings)."""
    return path.name.startswith("._") or path.name in LITTER_NAMES or "__MACOSX" in path.parts
