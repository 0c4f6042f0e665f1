"""Which label files of a hospital's folder belong to which scan, told by their paths; nothing is opened."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.structures import match_structures

NIFTI_SUFFIXES = (".nii.gz", ".nii")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
LABEL_WORD = re.compile(r"(?<![a-z])(labels?(?:tr|ts)?|seg|segs|segmentations?|masks?)(?![a-z])", re.IGNORECASE)
"""A NIfTI or NRRD whose path holds one of these words is a label; a longer word such as a surname never matches."""
IMAGE_WORD = re.compile(r"(imaging|images?|imagestr|imagests|img|imgs|ct|scans?|volumes?|vol|dicoms?|dcm|0000)")
"""Words of a path that say image, as LABEL_WORD says label: both are left out when paths are compared."""

Words = tuple[str, ...]


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Tell whether a file's name ends so, upper or lower case."""
    return path.name.lower().endswith(tuple(suffixes))


def is_label_path(relative: Path) -> bool:
    """Tell whether a path under the cohort's folder says that its file is a label."""
    return LABEL_WORD.search(relative.as_posix()) is not None


def words_of(path: Path) -> Words:
    """Return the words of a path in lower case, without suffix and without those that say image or label.

    `p1/images/a.nii.gz`, `p1/labels/a.nii.gz` and `p1/a_seg.nii.gz` all give (..., p1, a).
    """
    name = path.name
    for suffix in (*NIFTI_SUFFIXES, *NRRD_SUFFIXES):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    words = [word for part in (*path.parent.parts, name) for word in re.split(r"[\W_]+", part.lower()) if word]
    return tuple(word for word in words if not IMAGE_WORD.fullmatch(word) and not LABEL_WORD.fullmatch(word))


def anchor_of(files: Sequence[Path]) -> Path:
    """Return the path that stands for an image: its file, or the folder that holds all slices of its series."""
    if has_suffix(files[0], (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)):
        return files[0]
    return Path(os.path.commonpath([path.parent for path in files]))


def rest_of(label: Path, image: Path) -> Words:
    """Return the words that a label's path has beyond the image's, or those of its name where it begins otherwise."""
    wanted, found = words_of(image), words_of(label)
    return found[len(wanted) :] if found[: len(wanted)] == wanted else words_of(Path(label.name))


def masks_without_word(paths: Sequence[Path], card: Card) -> set[Path]:
    """Return the files that are one structure's mask although no word says so: `liver.nii.gz` beside `ct.nii.gz`.

    Such a file's path is that of another image and a structure's name, nothing else.
    """
    by_words: dict[Words, list[Path]] = defaultdict(list)
    for path in paths:
        by_words[words_of(path)].append(path)
    found: set[Path] = set()
    for words, members in by_words.items():
        for length in range(len(words)):
            images = {image.parent for image in by_words.get(words[:length], ())}
            beside = [path for path in members if path.parent in images]
            if beside and match_structures(["_".join(words[length:])], card)[0]:
                found.update(beside)
    return found


def pair_by_path(images: Mapping[str, Path], labels: Sequence[Path]) -> dict[str, list[Path]]:
    """Return, for each image that has any, its labels.

    images: key -> the image's file, or the folder of its DICOM series. A label belongs to the image whose words its own
    path begins with, the longest such; where several images share them, to none. A label beside or above exactly one
    DICOM folder, and no other image, belongs to that.
    """
    by_words: dict[Words, list[str]] = defaultdict(list)
    for key, path in images.items():
        by_words[words_of(path)].append(key)
    found: dict[str, list[Path]] = defaultdict(list)
    for label in labels:
        words = words_of(label)
        keys = next((by_words[words[:n]] for n in range(len(words), -1, -1) if words[:n] in by_words), [])
        if not keys:
            keys = [key for key, path in images.items() if label.parent in (path, *path.parents)]
            if any(has_suffix(images[key], (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)) for key in keys):
                keys = []
        if len(keys) == 1:
            found[keys[0]].append(label)
    return dict(found)
