"""What an unpacked folder says about itself: from which archive it came, and how much it held."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from datasets_registry.archives.extract import MARKER
from datasets_registry.archives.limits import Unpacked
from datasets_registry.durable import sync


def find_unpacked(folder: Path, digest: str, nested: tuple[str, ...], archive: Path) -> Unpacked | None:
    """Return what an earlier run left in `folder`, None when it is free; FileExistsError when it holds other things."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    marker = _read_marker(folder)
    if marker is None:
        raise FileExistsError(
            errno.EEXIST,
            f"holds files that no finished unpacking left (no {MARKER}), and {archive.name} is to be unpacked there; "
            "move it away or choose another folder",
            str(folder),
        )
    if marker["sha256"] != digest or marker["asked_nested"] != list(nested):
        raise FileExistsError(
            errno.EEXIST,
            f"was unpacked from {marker['archive']} (SHA-256 {marker['sha256'][:12]}, inner archives "
            f"{marker['asked_nested']}), not from {archive.name} (SHA-256 {digest[:12]}, inner archives "
            f"{list(nested)}); move it away or choose another folder",
            str(folder),
        )
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / MARKER]
    size = sum(path.stat().st_size for path in files)
    if (len(files), size) != (marker["files"], marker["bytes"]):
        raise FileExistsError(
            errno.EEXIST,
            f"holds {len(files)} files of {size} bytes, but {marker['files']} of {marker['bytes']} bytes were unpacked "
            f"from {archive.name}; remove the folder to unpack it again",
            str(folder),
        )
    return Unpacked(
        folder, marker["files"], marker["bytes"], marker["litter"], tuple(marker["nested"]), digest, fresh=False
    )


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return marker


def write_marker(partial: Path, archive: Path, unpacked: Unpacked, asked: tuple[str, ...]) -> None:
    """Write what `find_unpacked` will read; asked: the patterns of inner archives."""
    marker = {
        "archive": archive.name,
        "sha256": unpacked.sha256,
        "asked_nested": list(asked),
        "files": unpacked.files,
        "bytes": unpacked.bytes,
        "litter": unpacked.litter,
        "nested": list(unpacked.nested),
    }
    path = partial / MARKER
    path.write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    sync(path)
    sync(partial)
