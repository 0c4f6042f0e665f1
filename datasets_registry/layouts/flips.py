"""Which of the eight flips puts a label onto its image, told by the tissue under it; for affines that are of no use."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from imaging.errors import BadInput
from imaging.resample import orient_ras
from imaging.sides import body_midline_x
from imaging.volume import Volume

MINIMUM_SHARE = 0.8
"""Share of the flip class's voxels that must lie on soft tissue under the right flip."""
MARGIN = 0.05
"""By how much of all labelled voxels on soft tissue the best flip must lead the next one; less is a tie."""

Flip = tuple[bool, bool, bool]


@dataclass(frozen=True)
class _Candidate:
    flip: Flip
    share: float
    mean_hu: float
    labelled_share: float

    def __str__(self) -> str:
        axes = "".join(axis for axis, flipped in zip("xyz", self.flip, strict=True) if flipped) or "none"
        return f"{axes}: {self.share:.2f} at {self.mean_hu:.0f} HU, all labels {self.labelled_share:.2f}"


def match_by_tissue(image: Volume, label: Volume, card: Card, where: str, disagreement: BadInput) -> Volume:
    """Return `label` on the image's grid under the one flip that the tissue supports, recorded as a step.

    image: HU, label: native integers; both are compared in RAS order. The values mapped to option `flip_class` must lie
    on soft tissue (`flip_hu_min` to `flip_hu_max`), and a labelled liver on the patient's right; of those flips the one
    with most labelled voxels on soft tissue is taken. Raises BadInput with both affines where the shapes differ, no
    flip fits, or two fit alike.
    """
    upright, native = orient_ras(image), orient_ras(label)
    if upright.shape != native.shape:
        raise _refusal(image, label, where, f"shapes {upright.shape} and {native.shape} in RAS order", disagreement)
    scored = sorted(_candidates(upright, native, card), key=lambda candidate: -candidate.labelled_share)
    low, high = _range(card)
    fitting = [one for one in scored if one.share >= MINIMUM_SHARE and low <= one.mean_hu <= high]
    if not fitting or (len(fitting) > 1 and fitting[0].labelled_share - fitting[1].labelled_share < MARGIN):
        tested = "; ".join(str(one) for one in scored) or "no voxel of the class to test, or the liver on the left"
        raise _refusal(image, label, where, f"no single fitting flip ({tested})", disagreement)
    best = fitting[0]
    flipped = native.array[_slices(best.flip)]
    placed = Volume(_as_image(flipped, image, upright), image.affine, native.steps)
    return placed.with_step(
        "flip_by_tissue",
        axes_ras=list(best.flip),
        share=best.share,
        mean_hu=best.mean_hu,
        labelled_share=best.labelled_share,
        next_labelled_share=fitting[1].labelled_share if len(fitting) > 1 else None,
    )


def _candidates(upright: Volume, native: Volume, card: Card) -> list[_Candidate]:
    """Return what lies under the labels for every flip that leaves the liver on the right."""
    low, high = _range(card)
    labelled = np.argwhere(native.array != 0)
    of_class = np.isin(native.array[tuple(labelled.T)], _values(card, str(card.layout.options["flip_class"])))
    if not of_class.any():
        return []
    sides = _liver_side(upright, native, card)
    found = []
    for flip in product((False, True), repeat=3):
        if sides is not None and not sides[flip[0]]:
            continue
        places = np.where(flip, np.array(upright.shape) - 1 - labelled, labelled)
        values = upright.array[tuple(places.T)]
        soft = (values >= low) & (values <= high)
        shares = (float(soft[of_class].mean()), float(values[of_class].mean()), float(soft.mean()))
        found.append(_Candidate((flip[0], flip[1], flip[2]), *(round(value, 4) for value in shares)))
    return found


def _liver_side(upright: Volume, native: Volume, card: Card) -> tuple[bool, bool] | None:
    """Tell for (kept, flipped) along x whether the liver lies right of the body's middle; None without a liver."""
    along_x = np.isin(native.array, _values(card, "liver")).sum(axis=(1, 2))
    if not along_x.any():
        return None
    index = float(np.average(np.arange(len(along_x)), weights=along_x))
    middle = float(np.mean(body_midline_x(upright)))
    kept, flipped = (upright.affine[0, 3] + upright.affine[0, 0] * x for x in (index, len(along_x) - 1 - index))
    return bool(kept > middle), bool(flipped > middle)


def _values(card: Card, class_name: str) -> list[int]:
    return [value for value, label in card.labels.items() if class_name in label.reached]


def _range(card: Card) -> tuple[float, float]:
    return float(card.layout.options["flip_hu_min"]), float(card.layout.options["flip_hu_max"])


def _slices(flip: Flip) -> tuple[slice, slice, slice]:
    x, y, z = (slice(None, None, -1) if flipped else slice(None) for flipped in flip)
    return x, y, z


def _as_image(array: NDArray[np.generic], image: Volume, upright: Volume) -> NDArray[np.generic]:
    """Return an array in RAS order, (X, Y, Z), in the axis order and directions of the image on disk."""
    to_image = np.rint(np.linalg.inv(upright.affine) @ image.affine)[:3, :3]  # signed permutation, voxel to voxel
    axes = np.abs(to_image).argmax(axis=0)
    signs = to_image[axes, range(3)]
    ordered = array.transpose(*axes)
    return np.ascontiguousarray(ordered[_slices((signs[0] < 0, signs[1] < 0, signs[2] < 0))])


def _refusal(image: Volume, label: Volume, where: str, found: str, disagreement: BadInput) -> BadInput:
    return BadInput(
        "label_geometry",
        where,
        f"label affine {label.affine.round(3).tolist()}, image affine {image.affine.round(3).tolist()} "
        f"({disagreement.found}); {found}",
        "affines that agree up to flips, or exactly one flip with the class on soft tissue",
        "look at the case and list it under faulty_cases of the card, or repair the label's header",
    )
