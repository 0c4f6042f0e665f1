"""How the scans of each miniature set look: grid, field of view, lesions, and the peculiar cases of a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from datasets_registry.cards import Card
from datasets_registry.miniatures.lesions import KINDS

FIELD_MM = ((-196.0, 196.0), (-158.0, 146.0), (-232.0, 206.0))
"""World box of a whole scan (x, y, z), from the lung bases to below the femoral heads."""
UPPER_MM = (-44.0, FIELD_MM[2][1])
"""First and last slice of a scan of the upper abdomen."""


@dataclass(frozen=True)
class ScanStyle:
    """What the scans of one set, or one of its cases, have in common.

    axes: three letters, where each array axis points. spacing_mm: along world x, y, z. z_mm: first and last slice.
    noise_hu: standard deviation. lesions: class -> counts that the cases go through in turn; classes not named follow
    the card. anatomy: peculiarities of the patient, names of `peculiar.PECULIAR`. after: what happened to the file
    after the scan, names of `scan_changes.AFTER`, in order.
    """

    axes: str = "RAS"
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0)
    z_mm: tuple[float, float] = FIELD_MM[2]
    noise_hu: float = 12.0
    lesions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    anatomy: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


STYLES: dict[str, ScanStyle] = {
    "btcv": ScanStyle("LAS", (4.0, 4.0, 5.0), lesions=dict.fromkeys(KINDS, (0,))),
    "kits": ScanStyle("IPL", (4.2, 4.2, 4.5), lesions={"kidney_tumor": (1,), "kidney_cyst": (1, 0)}),
    "chaos_ct": ScanStyle("LPI", (3.8, 3.8, 4.0), UPPER_MM),
    "msd_pancreas": ScanStyle("RAS", (4.1, 4.1, 5.5), (-136.0, 206.0), 13.0, {"pancreas_tumor": (1,)}),
    "pancreas_ct": ScanStyle("LPS", (3.9, 3.9, 4.8), noise_hu=11.0),
    "lits": ScanStyle("RAS", (4.2, 4.2, 4.6)),
    "msd_hepatic_vessel": ScanStyle("RAS", (4.1, 4.1, 6.5), UPPER_MM),
    "msd_spleen": ScanStyle("LAS", (4.0, 4.0, 5.5), UPPER_MM),
    "msd_lung": ScanStyle("RAS", (4.0, 4.0, 4.5), (40.0, 206.0)),
    "msd_colon": ScanStyle("LAS", (4.1, 4.1, 6.0)),
    "amos22_ct": ScanStyle("LAS", (4.3, 4.3, 5.0)),
    "word": ScanStyle("LPS", (4.0, 4.0, 4.0), noise_hu=9.0, lesions=dict.fromkeys(KINDS, (0,))),
    "totalsegmentator_v2": ScanStyle("RAS", (4.5, 4.5, 4.5), lesions={"kidney_cyst": (1,)}),
    "abdomenct_1k": ScanStyle("LPS", (4.2, 4.2, 5.0)),
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

LITS_LOST_SPACING = range(28, 48)
LITS_WITHOUT_TUMOUR = (32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119)


def _lits_case(number: int) -> ScanStyle:
    """Return the style of LiTS volume `number`: directions differ, 28-47 lost their spacing, some patients no tumour.

    Even numbers have lungs that touch, for CT-ORG, which labels the lungs of the same scans.
    """
    lost = number in LITS_LOST_SPACING
    return replace(
        STYLES["lits"],
        axes="RAS" if lost else ("LAS", "RAS", "LPS")[number % 3],
        lesions={"liver_tumor": (0,)} if number in LITS_WITHOUT_TUMOUR else {},
        anatomy=("touching_lungs",) if number % 2 == 0 else (),
        after=("lost_spacing",) if lost else ("deep_padding",) if number % 4 == 1 else (),
    )


PECULIAR_CASES: dict[str, dict[int, ScanStyle]] = {
    "btcv": {21: replace(STYLES["btcv"], anatomy=("no_gall_bladder",))},
    "kits": {
        # tumours at every site, so that the kidney that is left surely bears one
        400: replace(STYLES["kits"], anatomy=("no_left_kidney",), lesions={"kidney_tumor": (4,), "kidney_cyst": (4,)}),
        401: replace(STYLES["kits"], anatomy=("horseshoe_kidney",)),
    },
    "lits": {number: _lits_case(number) for number in range(131)},
    "abdomenct_1k": {number: replace(STYLES["abdomenct_1k"], anatomy=("no_spleen",)) for number in (219, 656)},
    "amos22_ct": {8: replace(STYLES["amos22_ct"], z_mm=UPPER_MM)},
    "totalsegmentator_v2": {
        1: replace(STYLES["totalsegmentator_v2"], z_mm=(30.0, 206.0), after=("void_corner",)),
    },
}
"""Cases that differ from their set: card id -> case number -> style."""


def style_of(card: Card, number: int | None = None, spacing_mm: tuple[float, float, float] | None = None) -> ScanStyle:
    """Return the style of a set or of one of its cases; a card without its own gets a plain one.

    spacing_mm (x, y, z) replaces that of the style.
    """
    style = STYLES.get(card.id, ScanStyle())
    if number is not None:
        style = PECULIAR_CASES.get(card.id, {}).get(number, style)
    return style if spacing_mm is None else replace(style, spacing_mm=spacing_mm)
