"""From a scan's style to its grid in the scanner, and to the lesions that its patient has."""

from __future__ import annotations

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.miniatures.lesions import KINDS
from datasets_registry.miniatures.styles import FIELD_MM, ScanStyle
from imaging.volume import Affine

AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Letter -> world axis and direction in which the array index grows."""


def lesions_of(turn: int, style: ScanStyle, card: Card | None) -> dict[str, int]:
    """Return the lesion counts that the case at place `turn` of a set must have; classes left out are drawn by chance.

    Annotated lesions are present, those the card calls tumour-free absent. The liver bears one kind of tumour only,
    since both kinds are liver tumours and a card's label would otherwise be untrue to the other one.
    """
    wanted: dict[str, int] = {}
    if card is not None:
        for name in KINDS:
            if name in card.tumour_free:
                wanted[name] = 0
            elif name in card.annotated_classes:
                wanted[name] = (2, 1, 3)[turn % 3] if name == "liver_tumor" else 1
        vessel_tumour = "hepatic_vessel_tumor" in card.annotated_classes
        wanted["liver_tumor" if vessel_tumour else "hepatic_vessel_tumor"] = 0
    for name, counts in style.lesions.items():
        wanted[name] = counts[turn % len(counts)]
    return wanted


def native_grid(style: ScanStyle, rng: np.random.Generator) -> tuple[tuple[int, int, int], Affine]:
    """Return shape and affine of one scan in the set's own axis order, the table shifted by a few mm."""
    shift = rng.uniform(-4.0, 4.0, 3)
    box = (FIELD_MM[0], FIELD_MM[1], style.z_mm)
    affine = np.eye(4)
    shape = []
    for along, letter in enumerate(style.axes):
        world, direction = AXES[letter]
        low, high = box[world][0] + shift[world], box[world][1] + shift[world]
        spacing = style.spacing_mm[world]
        shape.append(int((high - low) / spacing) + 1)
        affine[:3, along] = 0.0
        affine[world, along] = direction * spacing
        affine[world, 3] = round(low if direction > 0 else high, 3)
    return (shape[0], shape[1], shape[2]), affine
