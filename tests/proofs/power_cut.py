"""What a power cut would take: read from the log of the writing calls that the fault shim keeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def not_forced(lines: Iterable[str], root: Path) -> list[str]:
    """Return what below `root` was not forced to the disk: files whose last write no fsync follows, and names of files
    and folders that no fsync of the folder above follows.

    lines: of the shim's log, `<number> <kind> <path> [<path before>]`, of one process that wrote all there is.
    """
    contents: set[str] = set()
    names: set[str] = set()
    folders: set[str] = set()  # made before: making one that is there does nothing
    for line in lines:
        _, kind, path, *before = line.rstrip("\n").split(" ")
        if kind in ("write", "truncate"):
            contents.add(path)
        elif kind == "open" or (kind == "mkdir" and path not in folders):
            names.add(path)
            folders.update({path} if kind == "mkdir" else ())
        elif kind == "remove":
            folders.discard(path)
        elif kind == "fsync":
            contents.discard(path)
            names = {name for name in names if str(PurePosixPath(name).parent) != (path or "/")}
        elif kind in ("rename", "link"):
            (source,) = before
            contents = {_moved(name, source, path) for name in contents}
            names = {_moved(name, source, path) for name in names} | {path}
            folders = {_moved(name, source, path) for name in folders}
    there = {"/" + found.relative_to(root).as_posix() for found in root.rglob("*")}
    return sorted({f"content of {name}" for name in contents & there} | {f"name {name}" for name in names & there})


def _moved(name: str, source: str, path: str) -> str:
    """Return where `name` lies after `source`, a file or a folder, became `path`."""
    return path + name.removeprefix(source) if name == source or name.startswith(f"{source}/") else name
