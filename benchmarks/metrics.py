"""`dsc bits`: DSC of all 32 classes of a 300^3 scan. `metrics`: every score of every class of it, time and memory.

The peer of both is the surface-distance package, class by class, on the masks that it needs unpacked.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import surface_distance

from benchmarks.child import peak_gb, report, used_gb
from benchmarks.side_by_side import record, run_in_turn
from benchmarks.volumes import SPACING_MM, made_bits
from imaging.bits import Bits, get_channel, set_channel
from imaging.metrics import MaskScores, overlap_bits, score_bits

CLASSES = range(32)
TOLERANCE_MM = 2.0
STRAY = 40


def pair() -> tuple[Bits, Bits]:
    """Return the phantom's bits and a prediction: shifted by 2, 1 and 1 voxels, and stray parts in every third class.

    The stray ones lie anywhere, as a network's do, and make distances of many centimetres.
    """
    truth = made_bits()
    predicted = np.roll(truth, (2, 1, 1), axis=(1, 2, 3))
    rng = np.random.default_rng(0)
    for channel in CLASSES[::3]:
        stray = np.zeros(truth.shape[1:], dtype=bool)
        for x, y, z in rng.integers(0, 290, (STRAY, 3)):
            stray[x : x + 5, y : y + 4, z : z + 3] = True
        set_channel(predicted, channel, stray)
    return truth, predicted


def peer_scores(truth: Bits, predicted: Bits, channel: int) -> tuple[float, float, float]:
    """Return NSD, HD95 and mean surface distance of one class by the surface-distance package; NaN where empty."""
    a, b = get_channel(truth, channel), get_channel(predicted, channel)
    if not a.any() or not b.any():
        return (float("nan"),) * 3
    found = surface_distance.compute_surface_distances(a, b, SPACING_MM)
    there, back = surface_distance.compute_average_surface_distance(found)
    one, other = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return (
        float(surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)),
        float(surface_distance.compute_robust_hausdorff(found, 95)),
        float((there * one + back * other) / (one + other)),
    )


def _check(ours: dict[int, MaskScores], peer: dict[int, tuple[float, float, float]]) -> None:
    for channel, expected in peer.items():
        scores = ours[channel]
        if not np.allclose((scores.nsd, scores.hd95_mm, scores.asd_mm), expected, rtol=1e-6, atol=1e-6, equal_nan=True):
            raise ValueError(f"metrics: channel {channel}: ours {scores}, peer {expected}, expected equal to 1e-6")


def main() -> None:
    truth, predicted = pair()
    shown = sorted(overlap_bits(truth, predicted))  # of two empty masks the peer fails under NumPy 2

    def peer_dsc() -> list[float]:
        return [
            surface_distance.compute_dice_coefficient(get_channel(truth, c), get_channel(predicted, c)) for c in shown
        ]

    ours = [overlap.dsc for _, overlap in sorted(overlap_bits(truth, predicted).items())]
    if not np.allclose(ours, peer_dsc()):
        raise ValueError(f"dsc bits: ours {ours}, peer {peer_dsc()}")
    run_in_turn("dsc bits", lambda: overlap_bits(truth, predicted), peer_dsc)

    started = time.perf_counter()
    expected = {channel: peer_scores(truth, predicted, channel) for channel in CLASSES}
    peer_s = time.perf_counter() - started  # minutes: once is enough
    _check(score_bits(truth, predicted, CLASSES, SPACING_MM, TOLERANCE_MM), expected)
    taken = []
    for _ in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        score_bits(truth, predicted, CLASSES, SPACING_MM, TOLERANCE_MM)
        taken.append((time.perf_counter() - started, time.process_time() - cpu))
    print(f"metrics: CPU time {sorted(cpu for _, cpu in taken)[1]:.2f} s in 2 threads")
    record("metrics", sorted(wall for wall, _ in taken)[1], peer_s, "s")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "pair.npy", np.stack([truth, predicted]))
        own, other = (peak_gb("benchmarks.metrics", who, folder)[1] for who in ("ours", "peer"))
    record("metrics memory", own, other, "GB")


def measure(who: str, folder: str) -> None:
    """Run one side on the pair kept in `folder` and print the memory it took; of the peer one class is enough."""
    truth, predicted = np.load(Path(folder) / "pair.npy")
    before = used_gb()
    if who == "ours":
        score_bits(truth, predicted, CLASSES, SPACING_MM, TOLERANCE_MM)
    else:
        peer_scores(truth, predicted, 0)
    report(before)


if __name__ == "__main__":
    measure(*sys.argv[1:])
