"""What cleaning gives back: named by predictions too, which need none of its libraries."""

from __future__ import annotations

from dataclasses import dataclass

from imaging.bits import Bits


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Cleaned bits (W, X, Y, Z), and what became of each class.

    removed, added: per class name the voxels that went and came in all, where there were any. record: per class name
    one entry a rule that changed something, `{"rule": "largest_component", "removed": 120, "added": 0}`, in the order
    of the rules; what one rule takes another may give back. remarks: what could not be done, in words.
    """

    bits: Bits
    removed: dict[str, int]
    added: dict[str, int]
    record: dict[str, list[dict[str, str | int]]]
    remarks: tuple[str, ...] = ()
