"""Labels that come as one mask a structure, found by name: which value a name means, and how masks become one label."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card, LabelValue
from datasets_registry.layouts.cases import RawCase
from datasets_registry.layouts.read import with_label
from imaging.errors import BadInput
from imaging.volume import Step, Volume

Masks = Iterable[tuple[int, Volume]]
"""Native value and mask (X, Y, Z), non-zero inside, on the image's grid, values ascending; those of one are united."""


def match_structures(names: Iterable[str], card: Card) -> tuple[dict[int, list[str]], list[str]]:
    """Return the names (of files, folders, ROIs or segments) under the value they mean, and those that mean none.

    A name means a value when it equals the value's name or one of its aliases, or else when one of its alias patterns
    fits; case, spaces, hyphens, dots and underscores do not count (Right_Kidney is rightkidney). Both results
    keep the order given. Raises BadInput where a name fits several values, without quoting it: it may be a person's.
    """
    found: dict[int, list[str]] = defaultdict(list)
    unmatched: list[str] = []
    for name in names:
        values = _exact(name, card) or _by_pattern(name, card)
        if len(values) > 1:
            meant = ", ".join(card.labels[value].name for value in values)
            raise BadInput("ambiguous_structure", card.id, f"a structure whose name fits {meant}", "one meaning",
                           "rename the structure, or make the aliases of the card tell them apart")  # fmt: skip
        if values:
            found[values[0]].append(name)
        else:
            unmatched.append(name)
    return dict(sorted(found.items())), unmatched


def merge_masks(image: Volume, masks: Masks, card: Card, where: str, *, base: Volume | None = None) -> RawCase:
    """Return the case with one label in which every mask has its value; `present_values` are the values given.

    base: a label that the masks are drawn into. Values without a class are known and not drawn. Where two structures
    overlap, the one of the higher value is kept and a note gives the voxels, unless it counts as the other's class too
    (a tumour in its organ). The steps of the masks become the label's.
    """
    top = max((0, *card.labels))
    merged: NDArray[np.integer] = np.zeros(image.shape, dtype=np.min_scalar_type(top))
    steps: list[Step] = []
    if base is not None:
        merged, steps = base.array.astype(merged.dtype), list(base.steps)
    present = set(np.unique(merged[merged != 0]).tolist())
    lost = 0
    last = 0
    for value, mask in masks:  # one at a time: all masks of a scan together would fill the memory
        if value < last:
            raise ValueError(f"{where}: mask of value {value} after value {last}; give masks by ascending value")
        last = value
        present.add(value)
        if not card.labels[value].reached:
            continue
        inside = mask.array != 0
        lost += _lost_voxels(merged[inside], value, card)
        merged[inside] = value
        steps += [replace(step, parameters={**step.parameters, "structure": value}) for step in mask.steps]
    raw = with_label(image, Volume(merged, image.affine, tuple(steps)), card, where)
    notes = [] if present and card.annotation_rule == "present" else list(raw.notes)
    if lost:
        notes.append(f"{where}: {lost} voxels lie in two structures, the higher value was kept")
    return replace(raw, notes=tuple(notes), present_values=frozenset(int(value) for value in present))


def _lost_voxels(under: NDArray[np.integer], value: int, card: Card) -> int:
    """Return how many voxels under a mask lose a class that its value does not set itself."""
    values, counts = np.unique(under, return_counts=True)
    kept = set(card.labels[value].reached)
    return sum(
        int(count)
        for other, count in zip(values.tolist(), counts.tolist(), strict=True)
        if other not in (0, value) and not set(card.labels[other].reached) <= kept
    )


def _exact(name: str, card: Card) -> list[int]:
    wanted = _plain(name)
    return [
        value
        for value, meaning in card.labels.items()
        if any(_plain(text) == wanted for text in (meaning.name, *meaning.aliases))
    ]


def _by_pattern(name: str, card: Card) -> list[int]:
    wanted = _plain(name)
    return [
        value
        for value, meaning in card.labels.items()
        if any(fnmatchcase(wanted, pattern) for pattern in _patterns(meaning))
    ]


def _patterns(meaning: LabelValue) -> Iterator[str]:
    for alias in meaning.aliases:
        if set(alias) & set("*?["):
            # inside [...] a hyphen is a range
            yield alias.casefold() if "[" in alias else _plain(alias)


def _plain(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\s_.\-]+", "", name.casefold())
