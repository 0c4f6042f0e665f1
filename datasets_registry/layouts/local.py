"""Layout: any folder of NIfTI or NRRD files or DICOM series, with or without labels beside them.

Names of files, patients and structures never leave this reader.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, NoCasesFound, RawCase, file_digest
from datasets_registry.layouts.local_labels import add_labels, label_files, read_volume
from datasets_registry.layouts.local_pairs import (
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    anchor_of,
    has_suffix,
    is_label_path,
    masks_without_word,
    pair_by_path,
)
from datasets_registry.layouts.read import join, located
from datasets_registry.litter import is_litter
from imaging.dicom import DicomSeries, find_series, read_series
from imaging.dicom_refs import KINDS, References, read_references
from imaging.errors import BadInput

COMPANIONS = {"RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "SR", "PR", "KO", "REG", "DOC"}
"""DICOM modalities that describe a scan and are none."""

PSEUDONYM_DIGITS = 10


def list_cases(root: Path, card: Card) -> Listing:
    """Return every image file and every CT series under `root`, each under a pseudonym made from its bytes.

    The same bytes give the same pseudonym wherever they lie; a second copy is a problem, not a second case. A series
    that is no CT or has fewer slices than option `min_slices` is left out where its study has one that is a scan.
    Labels join their image: files by their paths, DICOM ones by the series or the frame of reference that they name.
    Files that are neither (labels of no image, reports, litter) are counted. Raises NoCasesFound, without a word about
    names.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file()] if root.is_dir() else []
    images, labels = _divide(files, root, card)
    everything = find_series(root) if files else []
    series = _eligible([one for one in everything if one.modality not in COMPANIONS], card)
    if not images and not series:
        raise _nothing_found(files, root, card)
    problems: list[tuple[str, BadInput]] = []
    crowded = _crowded_folders(series)
    cases: dict[str, CaseFiles] = {}
    groups: dict[str, tuple[Path, ...]] = {}
    native_ids: dict[str, str] = {}
    for ordinal, (path, members) in enumerate(
        [(path, None) for path in images] + [(one.files[0], one.files) for one in series], start=1
    ):
        key, native_id = str(path), f"unreadable-{ordinal}"
        try:
            where = f"{card.id}/{native_id}"
            with located(where, members or (path,), names=False):
                groups[key] = members or label_files(path, where)
                native_id = pseudonym(file_digest(member) for member in groups[key])
            patients = max(crowded.get(member.parent, 1) for member in groups[key])
            _accept(native_id, groups[key], card, cases, patients)
            native_ids[key] = native_id
        except BadInput as problem:
            problems.append((native_id, problem))
    joined = pair_by_path({key: anchor_of(groups[key]) for key in native_ids}, labels)
    tied, unread = _tie([one for one in everything if one.modality in KINDS], series, card)
    problems += unread
    for key, native_id in native_ids.items():
        drawn = [*joined.get(key, ()), *tied.get(key, ())]
        cases[native_id] = CaseFiles(card.id, native_id, groups[key], _with_voxels(drawn, f"{card.id}/{native_id}"))
    used = {path for case in cases.values() for path in (*case.image, *case.label)}
    used.update(path for group in groups.values() for path in group)
    return Listing(tuple(cases[key] for key in sorted(cases)), tuple(problems), len(files) - len(used))


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return the image (HU) of one case with the labels whose names or values the card knows, if there are any.

    A BadInput and the notes speak of the pseudonym only; names of files and structures never get into them.
    """
    with located(case.where, case.image, names=False):
        if has_suffix(case.image[0], (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)):
            image = read_volume(case.image[0], case.where)
        else:
            image = read_series(case.image)
    raw = join(image, None, card, case.where)
    if image.shape[2] < (least := int(card.layout.options.get("min_slices", 1))):
        raw = replace(raw, notes=(f"{case.where}: only {image.shape[2]} slices, fewer than {least}",))
    return add_labels(raw, case, card) if case.label else raw


def pseudonym(digests: Iterable[str]) -> str:
    """Return the native id of a scan whose files have these SHA-256 digests, whatever their order and names."""
    together = hashlib.sha256("".join(sorted(set(digests))).encode()).hexdigest()
    return f"s{together[:PSEUDONYM_DIGITS]}"


def _divide(files: list[Path], root: Path, card: Card) -> tuple[list[Path], list[Path]]:
    """Return the image files and the label files among NIfTI and NRRD files."""
    volumes = [
        path
        for path in files
        if has_suffix(path, (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)) and not is_litter(path.relative_to(root))
    ]
    labels = {path for path in volumes if is_label_path(path.relative_to(root))}
    labels |= masks_without_word([path for path in volumes if path not in labels], card)
    return [path for path in volumes if path not in labels], [path for path in volumes if path in labels]


def _eligible(series: list[DicomSeries], card: Card) -> list[DicomSeries]:
    """Return the series that are scans: CT of at least option `min_slices` slices, localizers not counted.

    A study without any such series keeps what it has: reading it says what is wrong, or shows a short scan.
    """
    least = int(card.layout.options.get("min_slices", 1))
    scans = [one for one in series if one.modality == "CT" and one.slices >= least]
    studies = {_study(one) for one in scans}
    # files too damaged for a header are let through, so that their refusal is seen
    return [one for one in series if one in scans or one.modality == "unreadable" or _study(one) not in studies]


def _study(one: DicomSeries) -> tuple[str, str]:
    return one.patient_key, one.study_uid


def _tie(
    labels: list[DicomSeries], series: list[DicomSeries], card: Card
) -> tuple[dict[str, list[Path]], list[tuple[str, BadInput]]]:
    """Return the DICOM labels of each series, by its first file, and problems for labels that cannot be parsed."""
    found: dict[str, list[Path]] = defaultdict(list)
    problems: list[tuple[str, BadInput]] = []
    for ordinal, path in enumerate(sorted(path for one in labels for path in one.files), start=1):
        try:
            with located(f"{card.id}/label-{ordinal}", (path,), names=False):
                references = read_references(path, "label")
        except BadInput as problem:
            problems.append((f"label-{ordinal}", problem))
            continue
        if (owner := _owner(references, series)) is not None:
            found[str(owner.files[0])].append(path)
    return dict(found), problems


def _owner(references: References, series: list[DicomSeries]) -> DicomSeries | None:
    """Return the series a label was drawn on: the one it names, else the only one of its frame of reference."""
    named = [one for one in series if one.series_uid in references.series_uids]
    in_frame = [one for one in series if one.frame_uid in references.frame_uids]
    candidates = named or in_frame
    return candidates[0] if len(candidates) == 1 else None


def _with_voxels(labels: list[Path], where: str) -> tuple[Path, ...]:
    """Return label files, each detached header followed by the file of its voxels, so that a digest sees both."""
    found: list[Path] = []
    for path in labels:
        try:
            found += label_files(path, where)
        except (BadInput, OSError):
            found.append(path)  # reading the case refuses it with the reason
    return tuple(dict.fromkeys(found))


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
    labels = sum(1 for path in files if has_suffix(path, (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)))
    return NoCasesFound(
        f"{card.id}: no image in the given folder: found {len(files)} files, {labels} of them NIfTI files named like "
        f"labels (label, seg, mask); expected\n{card.layout.tree.rstrip()}\npoint at the folder that holds the images"
    )
