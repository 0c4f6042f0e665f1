"""Layout: any folder of NIfTI files or DICOM series, no labels. Names of files and patients never leave this module."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, NoCasesFound, RawCase, file_digest
from datasets_registry.layouts.files import is_litter
from datasets_registry.layouts.read import join, located
from imaging.dicom import DicomSeries, find_series, read_series
from imaging.errors import BadInput
from imaging.nifti import read_nifti

LABEL_WORD = re.compile(r"(?<![a-z])(labels?|seg|segs|segmentations?|masks?)(?![a-z])", re.IGNORECASE)
"""A NIfTI whose path holds one of these words is a label; a longer word such as a surname never matches."""

COMPANIONS = {"RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "SR", "PR", "KO", "REG", "DOC"}
"""DICOM modalities that describe a scan and are none."""

PSEUDONYM_DIGITS = 10


def list_cases(root: Path, card: Card) -> Listing:
    """Return every NIfTI image and every DICOM series under `root`, each under a pseudonym made from its bytes.

    The same bytes give the same pseudonym wherever they lie; a second copy is a problem, not a second case. Files that
    are neither (labels, reports, litter) are counted. Raises NoCasesFound, without a word about names.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file()] if root.is_dir() else []
    niftis = [path for path in files if _is_nifti(path, root)]
    series = [one for one in find_series(root) if one.modality not in COMPANIONS] if files else []
    if not niftis and not series:
        raise _nothing_found(files, root, card)
    crowded = _crowded_folders(series)
    cases: dict[str, CaseFiles] = {}
    problems: list[tuple[str, BadInput]] = []
    groups = [(path,) for path in niftis] + [one.files for one in series]
    for ordinal, group in enumerate(groups, start=1):
        native_id = f"unreadable-{ordinal}"
        try:
            with located(f"{card.id}/{native_id}", group, names=False):
                native_id = pseudonym(file_digest(path) for path in group)
            _accept(native_id, group, card, cases, max(crowded.get(path.parent, 1) for path in group))
        except BadInput as problem:
            problems.append((native_id, problem))
    used = sum(len(group) for group in groups)
    return Listing(tuple(cases[key] for key in sorted(cases)), tuple(problems), len(files) - used)


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return the image (HU) of one case, label None; a BadInput speaks of the pseudonym only."""
    with located(case.where, case.image, names=False):
        if _has_nifti_name(case.image[0]):
            image = read_nifti(case.image[0], where=case.where)
        else:
            image = read_series(case.image)
    return join(image, None, card, case.where)


def pseudonym(digests: Iterable[str]) -> str:
    """Return the native id of a scan whose files have these SHA-256 digests, whatever their order and names."""
    together = hashlib.sha256("".join(sorted(set(digests))).encode()).hexdigest()
    return f"s{together[:PSEUDONYM_DIGITS]}"


def _is_nifti(path: Path, root: Path) -> bool:
    relative = path.relative_to(root)
    return _has_nifti_name(path) and not is_litter(relative) and LABEL_WORD.search(relative.as_posix()) is None


def _has_nifti_name(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _crowded_folders(series: list[DicomSeries]) -> dict[Path, int]:
    """Return the count of patients for each folder that directly holds files of more than one."""
    patients: dict[Path, set[str]] = defaultdict(set)
    for one in series:
        for path in one.files:
            patients[path.parent].add(one.patient_key)
    return {folder: len(keys) for folder, keys in patients.items() if len(keys) > 1}


def _accept(native_id: str, group: tuple[Path, ...], card: Card, cases: dict[str, CaseFiles], patients: int) -> None:
    where = f"{card.id}/{native_id}"
    if patients > 1:
        raise BadInput(
            "two_patients",
            where,
            f"files of {patients} patients in one folder",
            "one patient a folder",
            "put the files of every patient into a folder of their own",
        )
    if native_id in cases:
        raise BadInput(
            "duplicate_case", where, "the same bytes in a second place", "every scan once", "remove one of the copies"
        )
    cases[native_id] = CaseFiles(card.id, native_id, tuple(group))


def _nothing_found(files: list[Path], root: Path, card: Card) -> NoCasesFound:
    if not root.is_dir():
        return NoCasesFound(f"{card.id}: the given source is no folder; expected one that holds\n{card.layout.tree}")
    labels = sum(1 for path in files if _has_nifti_name(path))
    return NoCasesFound(
        f"{card.id}: no image in the given folder: found {len(files)} files, {labels} of them NIfTI files named like "
        f"labels (label, seg, mask); expected\n{card.layout.tree.rstrip()}\npoint at the folder that holds the images"
    )
