"""The nouns of this folder: files of a case, a listing, a case as read, and what a reader promises."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datasets_registry.cards import Card
from imaging.errors import BadInput
from imaging.volume import Volume


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of one scan.

    image and label keep the order that ties them together (slices of a series, PNGs to slices). They stay out of the
    repr, because a hospital's paths may name patients and reprs end up in logs.
    """

    dataset: str
    native_id: str
    image: tuple[Path, ...] = field(repr=False)
    label: tuple[Path, ...] = field(repr=False, default=())

    @property
    def where(self) -> str:
        """Name of the case for messages: `<dataset>/<native id>`."""
        return f"{self.dataset}/{self.native_id}"


@dataclass(frozen=True)
class Listing:
    """What a raw folder holds: usable cases, refused ones with the reason, and the count of files that are no input."""

    cases: tuple[CaseFiles, ...]
    problems: tuple[tuple[str, BadInput], ...] = ()
    skipped_files: int = 0


@dataclass(frozen=True, eq=False)
class RawCase:
    """One scan as read.

    image: HU, axes as on disk, affine in RAS mm. label: native integer values on the image's grid, None where the data
    set ships no label for this case. notes: warnings for people; repairs are the volumes' steps. present_values: native
    values of the structures that the case ships, for cards whose annotation_rule is present; None where the label
    covers all declared values by rule.
    """

    image: Volume
    label: Volume | None
    notes: tuple[str, ...] = ()
    present_values: frozenset[int] | None = None


class Reader(Protocol):
    """A module of this folder: one kind of file layout."""

    def list_cases(self, root: Path, card: Card) -> Listing:
        """Return the cases under `root`; raises NoCasesFound when nothing there looks like the data set."""
        ...

    def read_case(self, case: CaseFiles, card: Card) -> RawCase:
        """Return image and label of a case; raises BadInput for one that must not enter the lake."""
        ...


class NoCasesFound(FileNotFoundError):
    """A raw folder without a single case; the message shows the expected tree and what lies there instead."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def raw_digest(case: CaseFiles) -> str:
    """Return one SHA-256 over the bytes of a case's files, image first, in order; names and dates do not enter."""
    digest = hashlib.sha256()
    for part, path in _parts(case):
        digest.update(f"{part} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def _parts(case: CaseFiles) -> Iterator[tuple[str, Path]]:
    for path in case.image:
        yield "image", path
    for path in case.label:
        yield "label", path
