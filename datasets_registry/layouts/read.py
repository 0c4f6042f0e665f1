"""Steps that every reader shares: read, check HU, bring the label onto the image's grid, check its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import RawCase
from imaging.checks import check_hu, check_label_values, clear_padding, match_grid
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.volume import Volume

AFFINE_CHOICES = ("agree", "sform", "qform")


@contextmanager
def located(where: str, files: Sequence[Path] = (), *, names: bool = True) -> Iterator[None]:
    """Let every BadInput raised inside name the case instead of a place on this machine.

    files: their folders are cut out of the messages; with `names=False` (patient data) their names too. A file that
    cannot be opened becomes a BadInput as well, since the other cases must go on.
    """
    try:
        yield
    except BadInput as error:
        fields = (_without_paths(text, files, names) for text in (error.found, error.expected, error.remedy))
        raise BadInput(error.code, where, *fields) from None
    except OSError as error:
        raise BadInput(
            "unreadable",
            where,
            f"a file that cannot be read ({type(error).__name__}: {error.strerror or 'unexpected end'})",
            "readable files",
            "check permissions and disk, then run again",
        ) from None


def _without_paths(text: str, files: Sequence[Path], names: bool) -> str:
    for path in files:
        text = text.replace(str(path), path.name).replace(f"{path.parent}/", "").replace(str(path.parent), "the folder")
        if not names:
            text = text.replace(path.name, "the file")
    return text


def read_nifti_of(path: Path, card: Card, where: str) -> Volume:
    """Return a NIfTI file; option `affine_from` of the card's layout chooses where sform and qform disagree."""
    choice = card.layout.options.get("affine_from", "agree")
    if choice not in AFFINE_CHOICES:
        raise ValueError(f"card {card.id}: layout.options.affine_from is {choice!r}, expected one of {AFFINE_CHOICES}")
    try:
        with located(f"{where} ({path.name})", (path,)):
            return read_nifti(path, affine_from=cast(Literal["agree", "sform", "qform"], choice))
    except BadInput as problem:
        if problem.code != "html" or card.landing_page is None:
            raise
        remedy = f"{problem.remedy}: {card.landing_page} (access: {card.access})"
        raise BadInput(problem.code, problem.where, problem.found, problem.expected, remedy) from None


def join(image: Volume, label: Volume | None, card: Card, where: str) -> RawCase:
    """Return the case, padding cleared, once HU, grid and label values pass their checks; raises BadInput."""
    with located(where):
        check_hu(image, where)
        image = clear_padding(image)
        if label is None:
            return RawCase(image, None)
        return with_label(image, match_grid(image, label, where), card, where)


def with_label(image: Volume, label: Volume, card: Card, where: str) -> RawCase:
    """Return the case with a label that already lies on the image's grid, after the check on its values.

    Under annotation_rule present the values that occur are the structures present; readers that find structures by
    file or segment name put their own in the place.
    """
    label = check_label_values(label, card.value_names, where)
    if card.annotation_rule == "present":
        values = frozenset(int(value) for value in np.unique(label.array) if value != 0)
        notes = () if values else (f"{where}: the label is empty, so nothing tells what was looked for",)
        return RawCase(image, label, notes, present_values=values)
    notes = () if label.array.any() else (f"{where}: the label is empty, all annotated classes count as absent",)
    return RawCase(image, label, notes)
