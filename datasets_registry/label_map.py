"""From native label values to class bits: by class name, with sides told apart and lesions put inside their organs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets_registry.cards import Card
from datasets_registry.taxonomy import ClassInfo, all_classes, class_info, class_names
from imaging.bits import channel_boxes, clear_channel, empty_bits, get_channel, pack, set_channel
from imaging.checks import check_label_values
from imaging.components import Box, bounding_box, box_slices, grow
from imaging.errors import BadInput
from imaging.sides import body_midline_x, split_sides
from imaging.volume import Volume

Midline = NDArray[np.float64]
"""World x in mm of the body's middle, one number for each axial slice of a RAS volume."""

SIDE_TOLERANCE_MM = 10.0
"""How far left of the body's middle a liver's centroid may lie before the label counts as mirrored."""


@dataclass(frozen=True, eq=False)
class LabelBits:
    """The label of one case in the factory's classes.

    bits: (W, X, Y, Z) uint32, see `imaging.bits`. annotated: classes known in this case, present or absent, in channel
    order. split_status: right class of a pair told apart by side -> status of the split.
    """

    bits: NDArray[np.uint32]
    annotated: tuple[str, ...]
    split_status: dict[str, str]


def native_to_bits(
    label: Volume,
    card: Card,
    image: Volume | None,
    *,
    midline_x: Midline | Callable[[], Midline] | None = None,
    where: str | None = None,
    annotated: tuple[str, ...] | None = None,
) -> LabelBits:
    """Return the class bits of a native label.

    label: (X, Y, Z) integers in RAS order. image: HU on the same grid, from which the body's middle is found when sides
    must be told; `midline_x` gives that middle instead, or finds it when called. annotated: the classes annotated in
    this case, by `Card.annotated_in`; None: all of the card's. The bits of any other class stay unset, whatever value
    occurs: a tumour shows that its organ is there, not that anybody drew it. Classes that touch an unassigned value are
    not known either and leave `annotated`. Raises BadInput for a value that the card
    does not declare and for a label mirrored left to right, ValueError for grids that differ, a missing middle or a
    class that the card does not annotate. An empty label gives empty bits, with every annotated class known to be
    absent.
    """
    where = where or card.id
    if image is not None and image.shape != label.shape:
        raise ValueError(
            f"{where}: label of shape {label.shape} on an image of shape {image.shape}; resample both alike"
        )
    label = check_label_values(label, card.value_names, where)
    annotated = _in_channel_order(card.annotated_classes if annotated is None else annotated, card, where)
    pairs = [pair for pair in card.split_pairs if set(pair) & set(annotated)]
    if not label.array.any():
        empty = empty_bits(label.shape, len(class_names()), "F")
        return LabelBits(empty, annotated, {right: "empty" for right, _ in pairs})
    sides = _Sides(label, image, midline_x, annotated, where)
    bits = _bits_by_value(label.array, card, annotated)
    status = {}
    for pair in pairs:
        values = [value for value, meaning in card.labels.items() if meaning.split == pair]
        status[pair[0]] = sides.split_into(bits, _look_up(_table(card, values), label.array), pair)
    _contain(bits, annotated, card, sides)
    _refuse_mirrored(bits, label, annotated, card, sides, where)
    return LabelBits(bits, _drop_uncertain(bits, label, annotated, card), status)


def _in_channel_order(names: tuple[str, ...], card: Card, where: str) -> tuple[str, ...]:
    if extra := sorted(set(names) - set(card.annotated_classes)):
        raise ValueError(f"{where}: {extra} given as annotated, but card {card.id} annotates {card.annotated_classes}")
    return tuple(name for name in class_names() if name in names)


class _Sides:
    """Right and left of one scan; the body's middle is found when it is first needed."""

    def __init__(
        self,
        label: Volume,
        image: Volume | None,
        midline_x: Midline | Callable[[], Midline] | None,
        annotated: tuple[str, ...],
        where: str,
    ) -> None:
        self._label = label
        self._image = image
        self._midline_x = midline_x
        self._annotated = annotated
        self._where = where

    @property
    def known(self) -> bool:
        """Whether the body's middle is known or can be found."""
        return self._image is not None or self._midline_x is not None

    def midline_x(self) -> Midline:
        """Return the body's middle for each axial slice of the label."""
        if self._midline_x is None:
            if self._image is None:
                raise ValueError(f"{self._where}: sides must be told apart, so give the image or the body's midline")
            self._midline_x = body_midline_x(self._image)
        elif callable(self._midline_x):
            self._midline_x = self._midline_x()
        return self._midline_x

    def split_into(self, bits: NDArray[np.uint32], mask: NDArray[np.bool_], pair: tuple[str, str]) -> str:
        """Set the channels of a (right, left) pair from one mask, and return how the split went."""
        if not mask.any():
            return "empty"
        split = split_sides(mask, self._label.affine, self.midline_x())
        for name, side in zip(pair, (split.right, split.left), strict=True):
            if name in self._annotated:
                set_channel(bits, class_info(name).channel, side)
        return split.status


def _bits_by_value(label: NDArray[np.integer], card: Card, annotated: tuple[str, ...]) -> NDArray[np.uint32]:
    """Return (W, X, Y, Z) words with the annotated classes that a value names, through one table lookup a word."""
    table = np.zeros((len(class_names()), max((0, *card.labels)) + 1, 1, 1), dtype=bool)  # (C, value, 1, 1)
    for value, meaning in card.labels.items():
        for name in set(meaning.classes) & set(annotated):
            table[class_info(name).channel, value] = True
    words = pack(table)[:, :, 0, 0]  # (W, value)
    return np.stack([_look_up(word, label).T for word in words]).transpose(0, 3, 2, 1)


def _look_up(table: NDArray[Any], label: NDArray[np.integer]) -> NDArray[Any]:
    """Return table[label], (X, Y, Z) with x fastest in memory, slice by slice: an index takes eight bytes a voxel."""
    found = np.empty(label.shape[::-1], dtype=table.dtype)
    for k, plane in enumerate(label.T):
        found[k] = table[plane]
    return found.T


def _table(card: Card, values: list[int]) -> NDArray[np.bool_]:
    """Return a lookup table, native value -> whether it is among `values`."""
    table = np.zeros(max((0, *card.labels)) + 1, dtype=bool)
    table[values] = True
    return table


def _contain(bits: NDArray[np.uint32], annotated: tuple[str, ...], card: Card, sides: _Sides) -> None:
    """Make every lesion voxel also a voxel of its organ, as far as the data set annotates that organ."""
    for lesion in (class_info(name) for name in annotated):
        parents = [class_info(name) for name in lesion.parents if name in annotated]
        values = [value for value in card.labels.values() if lesion.name in value.classes]
        # a value that names the organ beside the lesion has set both already
        said = all({parent.name for parent in parents} & set(value.reached) for value in values)
        if not lesion.is_lesion or not parents or said:
            continue
        outside = get_channel(bits, lesion.channel)
        for parent in parents:
            outside = outside & ~get_channel(bits, parent.channel)
        if not outside.any():
            continue
        # sides are told over both partners, also where one alone is annotated: a lesion of the other is not its own
        if pair := _mirror_pair([class_info(name) for name in lesion.parents]):
            sides.split_into(bits, outside, pair)
        elif len(parents) == 1:
            set_channel(bits, parents[0].channel, outside)


def _drop_uncertain(bits: NDArray[np.uint32], label: Volume, annotated: tuple[str, ...], card: Card) -> tuple[str, ...]:
    """Return the classes still known, and unset the others: those that touch a voxel of an unassigned value.

    Such a voxel, a tumour of any organ for one, may belong to what it touches; to call it "not the liver" would teach
    that livers have holes.
    """
    values = [value for value, meaning in card.labels.items() if meaning.unassigned]
    box = bounding_box(_look_up(_table(card, values), label.array)) if values else None
    if box is None:
        return annotated
    window = box_slices(grow(box, (1, 1, 1), label.shape))
    near = ndimage.binary_dilation(_look_up(_table(card, values), label.array[window]), np.ones((3, 3, 3)))
    touched = [name for name in annotated if get_channel(bits[:, *window], class_info(name).channel)[near].any()]
    for name in touched:
        clear_channel(bits, class_info(name).channel)
    return tuple(name for name in annotated if name not in touched)


def _mirror_pair(parents: list[ClassInfo]) -> tuple[str, str] | None:
    right = [parent.name for parent in parents if parent.side == "right"]
    left = [parent.name for parent in parents if parent.side == "left"]
    return (right[0], left[0]) if len(right) == len(left) == 1 else None


def _refuse_mirrored(
    bits: NDArray[np.uint32], label: Volume, annotated: tuple[str, ...], card: Card, sides: _Sides, where: str
) -> None:
    """Raise BadInput where right and left organs lie swapped; pairs told apart by side prove nothing and are left out.

    The liver decides only where no pair does, since a large left lobe can pull its centroid over the middle.
    """
    told_by_side = {name for pair in card.split_pairs for name in pair}
    boxes = channel_boxes(bits)
    pairs_seen = False
    for info in all_classes():
        if info.side != "right" or info.mirror is None or info.name in told_by_side:
            continue
        if info.name not in annotated or info.mirror not in annotated:
            continue
        right, left = (
            _centroid_x(bits, boxes, label, channel) for channel in (info.channel, class_info(info.mirror).channel)
        )
        if right is None or left is None:
            continue
        pairs_seen = True
        if right < left:
            raise _mirrored(
                where, f"{info.name} at x = {right:.0f} mm, {info.mirror} at x = {left:.0f} mm", "right > left"
            )
    if pairs_seen or "liver" not in annotated or not sides.known:
        return
    liver = _centroid_x(bits, boxes, label, class_info("liver").channel)
    if liver is not None and liver < (middle := float(np.mean(sides.midline_x()))) - SIDE_TOLERANCE_MM:
        raise _mirrored(where, f"liver at x = {liver:.0f} mm", f"right of the body's middle at x = {middle:.0f} mm")


def _centroid_x(bits: NDArray[np.uint32], boxes: dict[int, Box], label: Volume, channel: int) -> float | None:
    """Return the world x in mm of a class's centroid on a RAS grid, None for an absent class; boxes: of the bits."""
    if channel not in boxes:
        return None
    inner = bits[(slice(None), *box_slices(boxes[channel]))]
    along_x = np.count_nonzero(get_channel(inner, channel), axis=(1, 2))
    index = float(along_x @ np.arange(len(along_x))) / int(along_x.sum()) + boxes[channel][0]
    return float(label.affine[0, 3] + label.affine[0, 0] * index)


def _mirrored(where: str, found: str, expected: str) -> BadInput:
    return BadInput(
        "mirrored",
        where,
        f"{found} (x grows towards the patient's right)",
        expected,
        "check the orientation in the headers of image and label; a patient with mirrored organs needs a decision",
    )
