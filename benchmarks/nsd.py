"""`nsd`: surface Dice of one class at 245 x 193 x 224 against the surface-distance package, same value."""

from __future__ import annotations

import numpy as np
import surface_distance
from numpy.typing import NDArray

from benchmarks.side_by_side import run_in_turn
from imaging.metrics import surface_dice

SHAPE = (245, 193, 224)
SPACING_MM = (1.5, 1.5, 1.5)
TOLERANCE_MM = 2.0


def _organ(offset: float) -> NDArray[np.bool_]:
    """Return an ellipsoid of about 1.3 l with a wavy surface, in (X, Y, Z), shifted by `offset` voxels."""
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    centre = (120 + offset, 95, 110)
    wave = 1 + 0.06 * np.sin(x / 7.0) * np.cos(z / 9.0)
    distance = ((x - centre[0]) / 60) ** 2 + ((y - centre[1]) / 40) ** 2 + ((z - centre[2]) / 40) ** 2
    inside: NDArray[np.bool_] = distance < wave
    return inside


def main() -> None:
    truth, mask = _organ(0), _organ(2.5)

    def peer() -> float:
        distances = surface_distance.compute_surface_distances(truth, mask, SPACING_MM)
        return float(surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM))

    def ours() -> float:
        return surface_dice(truth, mask, SPACING_MM, TOLERANCE_MM)

    if abs(ours() - peer()) > 1e-6:
        raise ValueError(f"nsd: ours {ours()}, peer {peer()}, expected equal to 1e-6")
    run_in_turn("nsd", ours, peer)
