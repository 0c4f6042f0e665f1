"""Which files of a raw folder belong together: globs, native ids, litter, pairing of image and label."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, NoCasesFound
from datasets_registry.layouts.refusals import refuse_by_id
from datasets_registry.litter import is_litter
from imaging.errors import BadInput

SHOWN = 8
"""Entries of an unexpected folder quoted in a message."""

Groups = dict[str, list[Path]]
Problems = list[tuple[str, BadInput]]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `slice10` after `slice9`, digits before letters."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def expand_braces(pattern: str) -> list[str]:
    """Return the globs behind `{a,b}` alternatives, which pathlib does not know."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    parts = (pattern[: found.start()] + choice + pattern[found.end() :] for choice in found[1].split(","))
    return [glob for part in parts for glob in expand_braces(part)]


def matching_files(root: Path, pattern: str) -> list[Path]:
    """Return the files under `root` that match, without litter, in natural order of their relative paths."""
    found = {path for glob in expand_braces(pattern) for path in root.glob(glob) if path.is_file()}
    relative = {path: path.relative_to(root) for path in found}
    kept = [path for path in found if not is_litter(relative[path])]
    return sorted(kept, key=lambda path: natural_key(relative[path].as_posix()))


def count_litter(root: Path) -> int:
    """Return how many files under `root` were left behind by an operating system."""
    return sum(1 for path in root.rglob("*") if path.is_file() and is_litter(path.relative_to(root)))


def list_pairs(
    root: Path,
    card: Card,
    *,
    image_is_series: bool = False,
    label_is_stack: bool = False,
    label_is_tree: bool = False,
) -> Listing:
    """Return the cases of `root` by the card's globs, image and label joined by native id.

    image_is_series, label_is_stack: many files of one folder form an image (DICOM) or a label (PNGs); else one file.
    label_is_tree: the label is all files that match, whatever folders they lie in.
    Raises NoCasesFound when neither an image nor a label matches.
    """
    layout = card.layout
    images, problems = _group(root, card, layout.image_glob, layout.case_id_regex)
    pool: Groups = {}
    if layout.unlabelled_glob is not None:
        pool, more = _group(root, card, layout.unlabelled_glob, layout.case_id_regex)
        problems += more
        for native_id, paths in pool.items():
            known = images.setdefault(native_id, [])
            known += [path for path in paths if path not in known]
    labels: Groups = {}
    if layout.label_glob is not None:
        labels, more = _group(root, card, layout.label_glob, layout.label_id_regex or layout.case_id_regex)
        problems += more
    cases: list[CaseFiles] = []
    for native_id in sorted({*images, *labels}, key=natural_key):
        try:
            refuse_by_id(card, native_id)
            image = _image_of(native_id, root, card, images.get(native_id, []), labels, image_is_series)
            drawn = labels.get(native_id, [])
            places = {path.parent for path in drawn} if label_is_stack else set(drawn)
            label = _label_of(native_id, root, card, drawn, set() if label_is_tree else places, native_id in pool)
        except BadInput as problem:
            problems.append((native_id, problem))
        else:
            cases.append(CaseFiles(card.id, native_id, tuple(image), tuple(label)))
    if not cases and not problems:
        raise no_cases_found(root, card)
    return Listing(tuple(cases), tuple(problems), count_litter(root))


def no_cases_found(root: Path, card: Card) -> NoCasesFound:
    """Return the error for a folder without cases: the expected tree, and what lies there."""
    if not root.is_dir():
        return NoCasesFound(f"{card.id}: {root} is no folder; expected one that holds\n{card.layout.tree}")
    entries = sorted((entry.relative_to(root).as_posix() for entry in _first_levels(root)), key=natural_key)
    found = ", ".join(entries[:SHOWN]) + (f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else "")
    return NoCasesFound(
        f"{card.id}: no case under {root}: found {found or 'an empty folder'}; expected\n{card.layout.tree.rstrip()}\n"
        f"(images match {card.layout.image_glob}); point at the folder that holds this tree"
    )


def _first_levels(root: Path) -> Iterator[Path]:
    for entry in root.iterdir():
        yield entry
        if entry.is_dir():
            yield from entry.iterdir()


def _group(root: Path, card: Card, pattern: str, regex: str | None) -> tuple[Groups, Problems]:
    """Return the files that match by native id, and a problem for each whose path shows none."""
    groups: Groups = defaultdict(list)
    problems: Problems = []
    for path in matching_files(root, pattern):
        relative = path.relative_to(root).as_posix()
        if card.layout.case_id is not None:
            groups[card.layout.case_id].append(path)
        elif found := re.search(regex or "", relative):
            groups[found[1]].append(path)
        else:
            problem = BadInput(
                "case_id",
                f"{card.id}: {relative}",
                "a path without a native id",
                f"one that matches {regex!r}",
                "rename the file or move it out of the folder",
            )
            problems.append((relative, problem))
    return dict(groups), problems


def _image_of(native_id: str, root: Path, card: Card, images: list[Path], labels: Groups, series: bool) -> list[Path]:
    where = f"{card.id}/{native_id}"
    if not images:
        found = ", ".join(path.relative_to(root).as_posix() for path in labels[native_id][:SHOWN])
        raise BadInput(
            "image_missing",
            where,
            f"only the label {found}",
            f"an image that matches {card.layout.image_glob}",
            "fetch the images of the data set too",
        )
    places = {path.parent for path in images} if series else set(images)
    if len(places) > 1:
        raise BadInput("ambiguous_case", where, _names(places, root), "one image", "keep one of them in the folder")
    return images


def _label_of(
    native_id: str, root: Path, card: Card, labels: list[Path], places: set[Path], in_pool: bool
) -> list[Path]:
    where = f"{card.id}/{native_id}"
    if not labels and card.labels and not in_pool and native_id not in card.unlabelled_case_ids:
        raise BadInput(
            "label_missing",
            where,
            "an image without a label",
            f"a label that matches {card.layout.label_glob}",
            "fetch the labels too, or list the case under unlabelled_case_ids of the card",
        )
    if labels and native_id in card.unlabelled_case_ids:
        raise BadInput(
            "label_unexpected",
            where,
            _names(set(labels), root),
            "no label, by the card's unlabelled_case_ids",
            "check the download or correct the card",
        )
    if len(places) > 1:
        raise BadInput("ambiguous_case", where, _names(places, root), "one label", "keep one of them in the folder")
    return labels


def _names(paths: set[Path], root: Path) -> str:
    names = sorted(path.relative_to(root).as_posix() for path in paths)
    counted = Counter(names)
    return f"{len(counted)} candidates: {', '.join(names[:SHOWN])}"
