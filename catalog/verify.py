"""Integrity of a lake: every file that a committed row names is there, as long as it was, with the bytes it had."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from catalog.damage import find_damage
from catalog.errors import LakeDamage, LakeUnreachable
from catalog.files import Files, LocalFiles
from catalog.lake import Lake
from catalog.lake_write import LABELS, annotations_of, labels_index
from catalog.manifest import METADATA_NAME, FileEntry
from catalog.references import StoredVersion, stored_versions
from catalog.seals import noted_checksums, wrong_in
from catalog.tables import Tables

REQUESTS = 16
"""Cases looked at together in an object store, where most of the time is waiting."""


@dataclass(frozen=True)
class Damage:
    """One file that is not what its row says; `file` is relative to the lake's root."""

    case_id: str
    file: str
    found: str
    expected: str

    def __str__(self) -> str:
        return str(LakeDamage(self.case_id, self.file, self.found, self.expected))


def verify(tables: Tables, lake: Lake, read_data: bool = False, *, sample: float = 0.0, seed: str = "") -> list[Damage]:
    """Return all damage to committed cases and labels, superseded versions too, each file once; empty is sound.

    Without read_data: that files are there with their lengths, the SHA-256 of the small metadata files, and the lists
    of labels. read_data: all bytes, by the checksum of each chunk (see `seals`) or the SHA-256 of the file. sample: of
    this share of the files, 0 to 1, chosen by `seed`: other seeds choose others, so that many samples in a row come to
    read all. LakeUnreachable for a store out of reach.
    """
    if not 0 <= sample <= 1:
        raise ValueError(f"sample is {sample}, expected a share from 0 to 1")
    read = partial(_is_read, 1.0 if read_data else sample, seed)
    versions = list(stored_versions(tables, tables.versions()).values())
    workers = (os.cpu_count() or 1) if lake.files.is_local else REQUESTS
    with ThreadPoolExecutor(workers) as threads:
        found = [item for items in threads.map(partial(_damage_of, lake.files, read=read), versions) for item in items]
    return sorted(found, key=lambda item: (item.case_id, item.file))


def _is_read(share: float, seed: str, name: str) -> bool:
    """Whether a file belongs to the `share` of all files that `seed` chooses."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8])
    return drawn < share * 2**64


def _damage_of(files: Files, version: StoredVersion, read: Callable[[str], bool]) -> list[Damage]:
    damages = find_damage(version.case_id, files, version.path, version.manifest, read_data=False)
    found = [Damage(item.case_id, item.file, item.found, item.expected) for item in damages]
    wrong = {item.file for item in found}
    for relative, entry in version.manifest.files.items():
        name = f"{version.path}/{relative}"
        if relative.endswith(METADATA_NAME) or name in wrong or not read(name):
            continue
        try:
            found += _damage_of_data(files, version.case_id, name, entry, wrong)
        except LakeUnreachable:
            raise
        except OSError as error:
            found.append(Damage(version.case_id, name, f"unreadable ({error.strerror})", f"{entry.size} bytes"))
    if version.annotations:
        found += _damage_of_list(files, version)
    return found


def _damage_of_data(files: Files, case_id: str, name: str, entry: FileEntry, wrong: set[str]) -> list[Damage]:
    """Compare a shard with the checksums noted in its array's metadata; by its SHA-256 where there are none.

    In an object store by its SHA-256 too: there the network takes the time. wrong: files known to be damaged.
    """
    metadata = f"{name.split('/c/')[0]}/{METADATA_NAME}"
    if isinstance(files, LocalFiles) and metadata not in wrong:
        noted = noted_checksums(json.loads(files.read(metadata)).get("attributes", {}))
        if noted is not None:
            found = wrong_in(files.folder / name, noted)
            return [] if found is None else [Damage(case_id, name, found, "the chunks that were written")]
    digest = files.sha256(name)
    return [] if digest == entry.sha256 else [Damage(case_id, name, f"SHA-256 {digest}", f"SHA-256 {entry.sha256}")]


def _damage_of_list(files: Files, version: StoredVersion) -> list[Damage]:
    """Return what is wrong with the list of annotations, which viewers go by and no manifest holds."""
    name = f"{version.path}/{LABELS}/{METADATA_NAME}"
    expected = f"a list with {sorted(version.annotations)}"
    try:
        text = files.read(name).decode("utf-8")
        listed = json.loads(text)["attributes"]["ome"]["labels"]
        missing = sorted(version.annotations - set(listed))
        if missing:
            return [Damage(version.case_id, name, f"no entry for {missing}", expected)]
        beyond = set(listed) - version.annotations
        if beyond:  # an annotation that no row names yet may be listed too, if it is there
            beyond -= set(annotations_of(version.path, files.list(f"{version.path}/{LABELS}")))
        if beyond or text != labels_index(listed):
            return [Damage(version.case_id, name, f"other text, listing {listed}", expected)]
    except FileNotFoundError:
        return [Damage(version.case_id, name, "no file", expected)]
    except LakeUnreachable:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Damage(version.case_id, name, f"unreadable ({type(error).__name__})", expected)]
    return []
