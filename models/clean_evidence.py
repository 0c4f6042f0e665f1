"""Whether a scan's organs lie on their usual sides: where they do not, no right or left label is touched."""

from __future__ import annotations

from collections.abc import Sequence

from datasets_registry.taxonomy import ClassInfo
from models.clean_sheet import Sheet

CLEAR_SHARE = 0.6
"""An organ says nothing about sides unless at least this share of it lies on one side of the middle."""


def odd_sides(sheet: Sheet, rows: Sequence[ClassInfo]) -> str:
    """Return why the sides of this scan cannot be trusted, in words, or "" where they can.

    Organs without a partner that usually lie on one side (`lies`: liver, spleen, ...) have a voice each, by the side on
    which at least 60 % of their largest part lies. Only where none has one, each pair has a voice: by whether most of
    its voxels lie on the side of their name. More voices must be for the usual sides than against. Else the scan is
    mirrored, or the patient has situs inversus, which masks alone do not tell apart.
    """
    shares = {row.title: _share(sheet, row, row.lies) for row in rows if row.lies is not None}
    voices = {title: share for title, share in shares.items() if max(share, 1 - share) >= CLEAR_SHARE}
    if not voices:
        voices = _pairs(sheet, rows)
    against = [title for title, share in voices.items() if share < 0.5]
    if 2 * len(against) < len(voices) or not against:
        return ""
    return (
        f"sides: {', '.join(against)} on the other side of the body than usual ({len(against)} of {len(voices)}): "
        "the scan may be mirrored, or this is situs inversus; right and left are left as predicted"
    )


def _share(sheet: Sheet, row: ClassInfo, side: str) -> float:
    """Return the share of an organ's largest part on the given side; a half where there is none."""
    parts = sheet.parts(row)
    if not parts.count:
        return 0.5
    voxels = parts.sum()
    largest = int(voxels.argmax())
    right = int(parts.sum(sheet.regions.right)[largest]) / int(voxels[largest])
    return right if side == "right" else 1 - right


def _pairs(sheet: Sheet, rows: Sequence[ClassInfo]) -> dict[str, float]:
    """Return for each pair, by the titles of the two, the share of its voxels that lie on the side of their name."""
    named = {row.name: row for row in rows}
    shares = {}
    for row in rows:
        other = named.get(row.mirror or "")
        if row.side == "right" and other is not None and other.side == "left":
            voxels, right = sheet.regions.voxels, sheet.regions.right
            ones, others = sheet.of(row), sheet.of(other)
            total = int(voxels[ones].sum() + voxels[others].sum())
            if total:
                usual = int(voxels[ones & right].sum() + voxels[others & ~right].sum())
                shares[f"{row.title} and {other.title}"] = usual / total
    return shares
