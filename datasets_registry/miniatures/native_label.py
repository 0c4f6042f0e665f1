"""From the full truth back to the labels that a data set would ship: a card's label map, inverted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card, LabelValue
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, get_channel


def native_label(bits: Bits, card: Card) -> NDArray[np.uint8]:
    """Return native values (X, Y, Z) uint8 for the truth (W, X, Y, Z): each voxel holds its most specific value.

    A value applies where all its classes are true, and one of its sides if it names a pair; values without a class
    (bones, other organs) are never painted. Raises ValueError for values above 255.
    """
    if max(card.labels, default=0) > 255:
        raise ValueError(f"card {card.id}: value {max(card.labels)} does not fit the 8-bit labels of miniatures")
    label = np.zeros(bits.shape[1:], dtype=np.uint8)
    for value, meaning in sorted(card.labels.items(), key=lambda item: (_specificity(item[1]), item[0])):
        if meaning.reached:
            label[_applies(meaning, bits)] = value
    return label


def _specificity(meaning: LabelValue) -> tuple[bool, int]:
    """Return a sort key: organs before what lies inside them (lesions, vessels of the liver), then by classes named."""
    inner = any(class_info(name).is_lesion or class_info(name).parents for name in meaning.reached)
    return inner, len(meaning.classes)


def _applies(meaning: LabelValue, bits: Bits) -> NDArray[np.bool_]:
    applies: NDArray[np.bool_] = np.ones(bits.shape[1:], dtype=bool)
    for name in meaning.classes:
        applies &= get_channel(bits, class_info(name).channel)
    if meaning.split is not None:
        right, left = (get_channel(bits, class_info(name).channel) for name in meaning.split)
        applies &= right | left
    return applies
