"""Labels that hold part of a set's values only, as each case of a pooled set was annotated by another group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.miniatures.native_label import native_label
from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import Bits, get_channel

FLARE23_TUMOUR = 14
FLARE23_VALUES: tuple[tuple[int, ...], ...] = (
    (1, 2, 3, 4, 13, FLARE23_TUMOUR),
    (5, 6, 7, 8, 9, 10, 11, 12),
    (FLARE23_TUMOUR,),
)
"""Values that the labels of FLARE23 cases 1, 2, 3, 4, ... hold, in turn."""


def label_of(bits: Bits, card: Card, number: int) -> NDArray[np.uint8]:
    """Return the native label (X, Y, Z) of a case for its full truth (W, X, Y, Z).

    A FLARE23 label holds some of the values only, and its value 14 replaces the organ's where there is any tumour.
    A Gibson label of BTCV holds eight organs from case 61 on.
    """
    label = native_label(bits, card)
    if card.id == "flare23_pool":
        values = FLARE23_VALUES[(number - 1) % len(FLARE23_VALUES)]
        label[~np.isin(label, values)] = 0
        if FLARE23_TUMOUR in values:
            label[_any_tumour(bits)] = FLARE23_TUMOUR
    elif card.id == "btcv" and card.annotated_by_case:
        kept = set(card.annotated_in(f"{number:04d}", None))
        unseen = [value for value, meaning in card.labels.items() if not kept & set(meaning.reached)]
        label[np.isin(label, unseen)] = 0
    return label


def _any_tumour(bits: Bits) -> NDArray[np.bool_]:
    tumours = [info.name for info in all_classes() if info.kind == "tumour"]
    found: NDArray[np.bool_] = np.any([get_channel(bits, class_info(name).channel) for name in tumours], axis=0)
    return found
