"""Files of sets shipped as NIfTI; names follow from the card's layout, so that a new card needs no code."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.files import expand_braces
from datasets_registry.miniatures.parts import nested, part_of
from imaging.nifti import write_nifti
from imaging.volume import Volume

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(56)
"""Content of a `._` file as macOS leaves it in archives."""


def image_name(card: Card, number: int) -> tuple[str, Path]:
    """Return native id and image path, relative to the raw root, of case `number`; see `image_and_label_paths`."""
    native_id, path = _fitting(card, number, card.layout.image_glob, card.layout.case_id_regex)
    return native_id, Path(nested(card.id, number), path)


def image_and_label_paths(card: Card, number: int) -> tuple[str, Path, Path]:
    """Return native id, image path and label path, relative to the raw root, of case `number`.

    The tree of the card gives names in which N stands for digits; the globs and patterns of the card confirm them.
    Raises ValueError when no line of the tree fits the card's own globs.
    """
    layout = card.layout
    native_id, image = image_name(card, number)
    label = _fitting(card, number, layout.label_glob or "", layout.label_id_regex or layout.case_id_regex)
    if native_id != label[0]:
        raise ValueError(f"card {card.id}: image {image} is case {native_id!r}, label {label[1]} is case {label[0]!r}")
    return native_id, image, Path(label[1])


def write_pair(folder: Path, paths: tuple[Path, Path], image: Volume, label: Volume) -> None:
    """Write image and label under the raw root `folder`."""
    for path, volume in zip(paths, (image, label), strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(volume, folder / path)


def write_task_files(folder: Path, card: Card, written: list[tuple[Path, Path]]) -> None:
    """Write dataset.json of a Decathlon task and the AppleDouble litter that its archive carries."""
    task = folder / written[0][0].parts[0]
    described = {
        "name": task.name.partition("_")[2],
        "description": card.title,
        "licence": card.licence.spdx or "",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(value): meaning.name for value, meaning in card.labels.items()}},
        "numTraining": len(written),
        "numTest": 0,
        "training": [{"image": f"./{Path(*i.parts[1:])}", "label": f"./{Path(*j.parts[1:])}"} for i, j in written],
        "test": [],
    }
    (task / "dataset.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    for path in (task / "dataset.json", *(folder / part for pair in written for part in pair)):
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)


def _fitting(card: Card, number: int, glob: str, id_regex: str | None) -> tuple[str, str]:
    """Return native id and path of a name of the tree that matches the glob, shows the id and lies in the right part.

    The right part is the folder of `part_of`; where no name lies in it, the first name that matches is taken.
    """
    patterns = [re.compile(_regex_of(one)) for one in expand_braces(glob)]
    part = part_of(card.id, number)
    matching: list[tuple[str, str]] = []
    for template in _templates(card.layout.tree, number):
        path = re.sub(r"N+(?![A-Za-z])", lambda run: str(number).zfill(len(run[0])), template)
        found = re.search(id_regex or "", path)
        if any(pattern.fullmatch(path) for pattern in patterns) and (card.layout.case_id or found):
            native_id = card.layout.case_id or (found[1] if found else "")
            matching.append((native_id, path))
    if not matching:
        raise ValueError(
            f"card {card.id}: no name in layout.tree for case {number} matches {glob!r} and {id_regex!r}; tree: "
            f"{card.layout.tree!r}; write the tree with N for each digit of the case number"
        )
    return next((found for found in matching if part in found[1]), matching[0])


@cache
def _templates(tree: str, number: int) -> list[str]:
    """Return the NIfTI names of a tree, alternatives written out: `a{1,2}/x-N.nii N = 0..9` gives a1/x-N.nii, ...

    A line whose range does not hold `number` is left out.
    """
    found = []
    for line in tree.splitlines():
        span = re.search(r"\bN+ ?= ?(\d+)\.\.(\d+)", line)
        if span is not None and not int(span[1]) <= number <= int(span[2]):
            continue
        for piece in line.split(" and "):
            for name in expand_braces(piece.strip()):
                match = re.match(r".*?\.nii(\.gz)?(?=\s|$)", name)
                if match is not None:
                    found.append(match[0])
    return found


@cache
def _regex_of(glob: str) -> str:
    """Return a regular expression for a glob: `**/` is any number of folders, `*` and `?` stay within one."""
    text = re.escape(glob).replace(r"\[", "[").replace(r"\]", "]").replace(r"\-", "-")
    return text.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
