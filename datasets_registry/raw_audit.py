"""Whether the files of a raw zone are still those that were fetched, and those that the cards describe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import file_digest
from datasets_registry.sources.ledger import LEDGER, Entry, Ledger
from datasets_registry.sources.raw_zone import RawZone
from datasets_registry.sources.spec import Source

State = Literal["absent", "different", "unrecorded", "not fetched", "to be noted"]
"""absent: recorded, and gone (harmless once unpacked). different: other bytes than recorded or declared. unrecorded: a
file that no ledger line speaks of. not fetched: a needed file of the card that is not there. to be noted: right, and
the card states no digest."""


@dataclass(frozen=True)
class RawFinding:
    """One remark on one file of the raw zone."""

    card: str
    file: str
    state: State
    found: str
    expected: str

    @property
    def is_wrong(self) -> bool:
        """Whether the file cannot be used as it is."""
        return self.state == "different"


def audit_raw(raw: Path, cards: Sequence[Card], *, read_data: bool = False) -> list[RawFinding]:
    """Return what is to be said about the downloads under `raw`, in order of card; cards never fetched are left out.

    read_data: hash every file again, instead of trusting size and ledger.
    """
    findings: list[RawFinding] = []
    for card in cards:
        folder = RawZone(raw / card.id).downloads
        if folder.is_dir():
            findings += _audit_folder(card, folder, read_data)
    return findings


def _audit_folder(card: Card, folder: Path, read_data: bool) -> Iterator[RawFinding]:
    ledger = Ledger(folder / LEDGER)
    sources = {source.name: source for source in card.sources}
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _counts(path)}
    for name, path in files.items():
        entry = ledger.first(name)
        if entry is None:
            text = f"{path.stat().st_size} bytes"
            yield RawFinding(card.id, name, "unrecorded", text, "files put there are recorded by the next fetch")
            continue
        yield from _compare(card.id, path, entry, sources.get(name), read_data)
    for name, source in sources.items():
        if name in files or "{" in name:
            continue
        entry = ledger.first(name)
        if entry is not None:
            yield RawFinding(card.id, name, "absent", "no file", f"{entry.bytes} bytes, recorded {entry.date}")
        elif source.needed and source.kind in ("https", "zenodo", "gdrive", "synapse"):
            yield RawFinding(card.id, name, "not fetched", "no file", "ctfactory ingest with --source download")


def _compare(card_id: str, path: Path, entry: Entry, source: Source | None, read_data: bool) -> Iterator[RawFinding]:
    size = path.stat().st_size
    if size != entry.bytes:
        expected = f"{entry.bytes} bytes, recorded {entry.date}"
        yield RawFinding(card_id, entry.name, "different", f"{size} bytes", expected)
        return
    sha256 = file_digest(path) if read_data else entry.sha256
    if sha256 != entry.sha256:
        expected = f"sha256 {entry.sha256}, recorded {entry.date}"
        yield RawFinding(card_id, entry.name, "different", f"sha256 {sha256}", expected)
        return
    if source is None or source.volatile:
        return
    stated = {"sha256": (source.sha256, entry.sha256), "md5": (source.md5, entry.md5)}
    for kind, (declared, found) in stated.items():
        if declared is not None and declared != found:
            yield RawFinding(card_id, entry.name, "different", f"{kind} {found}", f"{kind} {declared} of the card")
    if source.sha256 is None and source.md5 is None:
        yield RawFinding(card_id, entry.name, "to be noted", f"sha256 {entry.sha256}", "the card states no digest")


def _counts(path: Path) -> bool:
    return path.is_file() and path.name != LEDGER and not path.name.startswith(".") and ".part" not in path.suffixes
