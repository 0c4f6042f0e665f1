"""How each miniature set was scanned: grid, field of view, and which lesions its patients have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.miniatures.lesions import KINDS
from imaging.volume import Affine

FIELD_MM = ((-196.0, 196.0), (-158.0, 146.0), (-232.0, 206.0))
"""World box of a whole scan (x, y, z), from the lung bases to below the femoral heads."""
AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Letter -> world axis and direction in which the array index grows."""


@dataclass(frozen=True)
class ScanStyle:
    """What the scans of one set have in common.

    axes: three letters, where each array axis points. spacing_mm: along world x, y, z. z_mm: first and last slice.
    noise_hu: standard deviation. lesions: class -> counts that the cases go through in turn; classes not named follow
    the card. first_id: number of the first case. ids: the set's own numbers where they have gaps.
    """

    axes: str = "RAS"
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0)
    z_mm: tuple[float, float] = FIELD_MM[2]
    noise_hu: float = 12.0
    lesions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    first_id: int = 1
    ids: tuple[int, ...] = ()


STYLES: dict[str, ScanStyle] = {
    "btcv": ScanStyle("LAS", (4.0, 4.0, 5.0), lesions=dict.fromkeys(KINDS, (0,))),
    "kits": ScanStyle("IPL", (4.2, 4.2, 4.5), lesions={"kidney_tumor": (1,), "kidney_cyst": (1, 0)}, first_id=0),
    "chaos_ct": ScanStyle(
        "LPI", (3.8, 3.8, 4.0), (-44.0, 206.0), ids=(1, 2, 5, 6, 8, 10, 14, 16, 18, 19, *range(21, 31))
    ),
    "msd_pancreas": ScanStyle("RAS", (4.1, 4.1, 5.5), (-136.0, 206.0), 13.0, {"pancreas_tumor": (1,)}),
    "pancreas_ct": ScanStyle("LPS", (3.9, 3.9, 4.8), noise_hu=11.0),
}
EXTERNAL_STYLE = ScanStyle(
    "LPS",
    (4.3, 4.3, 5.0),
    noise_hu=13.0,
    lesions={
        "kidney_tumor": (1, 0),
        "pancreas_tumor": (0, 1, 1),
        "kidney_cyst": (1, 1, 0),
        "hepatic_vessel_tumor": (0,),
    },
)


def style_of(card: Card, spacing_mm: tuple[float, float, float] | None = None) -> ScanStyle:
    """Return the style of a set, a plain one for a card without its own; `spacing_mm` (x, y, z) replaces its grid's."""
    style = STYLES.get(card.id, ScanStyle())
    return style if spacing_mm is None else replace(style, spacing_mm=spacing_mm)


def lesions_of(case: int, style: ScanStyle, card: Card | None) -> dict[str, int]:
    """Return the lesion counts that case number `case` of a set must have; classes left out are drawn by chance.

    Annotated lesions are present, those the card calls tumour-free absent. The liver bears one kind of tumour only,
    since both kinds are liver tumours and a card's label would otherwise be untrue to the other one.
    """
    wanted: dict[str, int] = {}
    if card is not None:
        for name in KINDS:
            if name in card.tumour_free:
                wanted[name] = 0
            elif name in card.annotated_classes:
                wanted[name] = (2, 1, 3)[case % 3] if name == "liver_tumor" else 1
        vessel_tumour = "hepatic_vessel_tumor" in card.annotated_classes
        wanted["liver_tumor" if vessel_tumour else "hepatic_vessel_tumor"] = 0
    for name, counts in style.lesions.items():
        wanted[name] = counts[case % len(counts)]
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
