"""Layout: a Medical Segmentation Decathlon task, whose dataset.json names the values and lists the training pairs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, NoCasesFound, RawCase
from datasets_registry.layouts.files import list_pairs, natural_key
from datasets_registry.layouts.nifti_pairs import read_case as read_pair
from imaging.errors import BadInput


def list_cases(root: Path, card: Card) -> Listing:
    """Return the training pairs under `root`, after comparing the task's dataset.json with the card.

    A pair that dataset.json lists and the folder lacks is a problem. Raises NoCasesFound without images or without
    dataset.json, ValueError when dataset.json gives other values or names than the card.
    """
    listing = list_pairs(root, card)
    known = {case.native_id for case in listing.cases} | {native_id for native_id, _ in listing.problems}
    problems = list(listing.problems)
    for task in sorted({case.image[0].parent.parent for case in listing.cases}):
        content = _description(task, card)
        for native_id, entry in _listed_images(content, card).items():
            if native_id not in known:
                problems.append((native_id, _absent(native_id, entry, card)))
    return replace(listing, problems=tuple(sorted(problems, key=lambda problem: natural_key(problem[0]))))


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and label (native values on the image's grid) of one pair; raises BadInput."""
    return read_pair(case, card)


def _description(task: Path, card: Card) -> dict[str, Any]:
    """Return dataset.json of the task folder, once its labels agree with the card's."""
    path = task / "dataset.json"
    if not path.is_file():
        raise NoCasesFound(
            f"{card.id}: no dataset.json in {task.name}, which says what the values mean; expected\n"
            f"{card.layout.tree.rstrip()}\nunpack the whole archive"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{card.id}: {task.name}/dataset.json is no JSON ({error}); fetch the archive again") from None
    found = {int(value): str(name) for value, name in content.get("labels", {}).items() if int(value) != 0}
    declared = {value: label.name for value, label in card.labels.items()}
    if {value: name.casefold() for value, name in found.items()} != {v: n.casefold() for v, n in declared.items()}:
        raise ValueError(
            f"{card.id}: {task.name}/dataset.json declares labels {found}, the card {declared}; this is another task "
            "or version: check the download or correct the card"
        )
    return content


def _listed_images(content: dict[str, Any], card: Card) -> dict[str, str]:
    """Return native id -> image path for the pairs that dataset.json lists under `training`."""
    entries = (entry["image"] if isinstance(entry, dict) else entry for entry in content.get("training", []))
    found = ((re.search(card.layout.case_id_regex or "", str(entry)), str(entry)) for entry in entries)
    return {match[1]: entry for match, entry in found if match is not None}


def _absent(native_id: str, entry: str, card: Card) -> BadInput:
    return BadInput(
        "image_missing",
        f"{card.id}/{native_id}",
        f"no file {entry}, which dataset.json lists",
        "every listed training image",
        "unpack the whole archive again",
    )
