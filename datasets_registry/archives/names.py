"""Which member names may become files: inside the folder, printable, and no two of them the same file."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from datasets_registry.archives import refusals

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 2048
"""Linux allows 4096 for a whole path; the target folder needs its share."""
MAX_DEPTH = 64
DRIVE = re.compile(r"[A-Za-z]:")
REVERSING = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the writing direction: a name shown with them reads as another name."""


class MemberNames:
    """The names of one folder tree so far, and the rules that a further name must keep."""

    def __init__(self, reserved: tuple[str, ...] = ()) -> None:
        self._reserved = {_key(PurePosixPath(name)) for name in reserved}
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def admit(self, where: str, name: str, *, is_folder: bool) -> PurePosixPath:
        """Return the relative path of a member, `.` for the root folder itself.

        Raises BadInput `archive_member` with the rule that the name breaks: absolute, leaving the folder, backslash,
        drive letter, control character, too long, or the same file as an earlier name once case and Unicode
        normalisation are ignored.
        """
        found = _broken_rule(name)
        if found is not None:
            raise refusals.member(where, name, found, "a plain relative path inside the archive's folder")
        path = PurePosixPath(name)
        if not path.parts:
            if is_folder:
                return path
            raise refusals.member(where, name, "a file without a name", "a name")
        self._claim(where, name, path, is_folder)
        return path

    def _claim(self, where: str, name: str, path: PurePosixPath, is_folder: bool) -> None:
        folders = [path, *path.parents][:-1] if is_folder else list(path.parents)[:-1]
        for folder in folders:
            key = _key(folder)
            earlier = self._files.get(key) or self._folders.setdefault(key, folder.as_posix())
            if earlier != folder.as_posix() or key in self._files:
                raise _collision(where, name, earlier)
        if is_folder:
            return
        key = _key(path)
        if key in self._reserved:
            raise refusals.member(where, name, "a name that unpacking itself uses", "another name")
        earlier = self._files.get(key) or self._folders.get(key) or ""
        if earlier:
            raise _collision(where, name, earlier)
        self._files[key] = path.as_posix()


def _broken_rule(name: str) -> str | None:
    """Return what is wrong with the spelling of a name, None when nothing is."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "a name that is not valid UTF-8"
    parts = name.split("/")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in REVERSING for letter in name):
        return "a NUL, control or direction character in the name"
    if "\\" in name:
        return "a backslash in the name"
    if name.startswith("/"):
        return "an absolute path"
    if DRIVE.match(name):
        return "a drive letter"
    if ".." in parts:
        return "a path that leaves its folder"
    if length > MAX_PATH_BYTES or len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"a path of {length} bytes and {len(parts)} levels, beyond what file systems hold"
    return None


def _key(path: PurePosixPath) -> str:
    """Return the spelling that every file system would take for the same file: Unicode's canonical caseless match."""
    folded = unicodedata.normalize("NFD", path.as_posix()).casefold()
    return unicodedata.normalize("NFD", folded)


def _collision(where: str, name: str, earlier: str) -> Exception:
    return refusals.member(
        where,
        name,
        f"the same file as {refusals.quoted(earlier)}",
        "names that differ by more than case or Unicode spelling",
    )
