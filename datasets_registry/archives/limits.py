"""The nouns of this folder: what an archive may cost, what unpacking gave, who carries the password."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class UnpackLimits:
    """What one archive, with the archives inside it, may cost; every limit is checked while bytes are written.

    max_bytes: of all members together. max_member_bytes: of one. max_members: files, folders and litter.
    max_ratio: unpacked bytes per packed byte, counted once more than `ratio_free_bytes` are unpacked (a small archive
    of empty masks is no bomb). memory_bytes: what decoding may take, so that a dictionary of 4 GiB is refused.
    stall_seconds: time without a byte read after which decoding is given up.
    """

    max_bytes: int = 2**40
    max_member_bytes: int = 2**35
    max_members: int = 2_000_000
    max_ratio: float = 300.0
    ratio_free_bytes: int = 2**28
    memory_bytes: int = 2**31
    stall_seconds: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"UnpackLimits.{field.name} is {value}; give a number above 0")


@dataclass(frozen=True)
class Password:
    """A password, if one is set, and the name of the setting that carries it (for messages; the value is in none)."""

    value: str | None
    setting: str

    def __repr__(self) -> str:
        return f"Password(set={self.value is not None}, setting={self.setting!r})"


@dataclass(frozen=True)
class Unpacked:
    """What lies in `folder`: count and bytes of files, litter left out, names of inner archives unpacked in place.

    sha256: of the archive. fresh: False where an earlier run had unpacked it and nothing was done.
    """

    folder: Path
    files: int
    bytes: int
    litter: int
    nested: tuple[str, ...]
    sha256: str
    fresh: bool
