"""`twins`: all copies among 10,000 generated scans, against comparing slices with all slices in matrix products."""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.side_by_side import record
from catalog.twins import SPREAD, TwinIndex
from datasets_registry.miniatures.phantom import make_anatomy, render
from imaging.fingerprint import FEATURES, Profile, slice_profile

SCANS = 10_000
PHANTOMS = 30
KNOTS = 10
ASKED_OF_PEER = 40
"""Scans the peer is asked for; the rest is reckoned."""
PEER_PROBES = 12
PEER_DISTANCE = 0.7
AFFINE = np.array([[9.0, 0, 0, -200], [0, 9.0, 0, -160], [0, 0, 8.0, -200], [0, 0, 0, 1]])


def phantom_profile(seed: int) -> Profile:
    """Return the figures of the slices of a coarse phantom from neck to thigh."""
    image, _ = render(make_anatomy(seed), (45, 35, 50), AFFINE, seed=seed)
    profile = slice_profile(image)
    if profile is None:
        raise ValueError(f"phantom {seed} shows too few slices with a body")
    return profile


def generated(seed: int, middle: Profile) -> Profile:
    """Return a patient that differs from the mean of all as phantoms do from theirs, of 60 to 340 slices."""
    rng = np.random.default_rng([seed, 3])
    first, last = rng.uniform(0, 12), rng.uniform(36, 49)
    at = np.linspace(first, last, int(rng.integers(60, 340)))
    # Half of the variance holds for the whole body, half changes along it.
    apart = (rng.normal(0, 1, FEATURES) + rng.normal(0, 1, (KNOTS, FEATURES))) * SPREAD / 2**0.5
    knots = np.linspace(0, 49, KNOTS)
    figures = [
        np.interp(at, np.arange(50), middle[:, figure]) + np.interp(at, knots, apart[:, figure])
        for figure in range(FEATURES)
    ]
    return np.maximum(np.stack(figures, axis=1), 1e-3).astype(np.float32)


def _peer_seconds(profiles: list[Profile]) -> float:
    """Return the time for asking after each scan in turn: twelve slices against all, one product, without comparing."""
    slices = np.concatenate(profiles) / SPREAD
    half = (slices**2).sum(axis=1) / 2
    limit = np.float32(PEER_DISTANCE**2 * FEATURES / 2)
    started = time.perf_counter()
    for profile in profiles[:ASKED_OF_PEER]:
        wanted = profile[np.linspace(0, len(profile) - 1, PEER_PROBES).round().astype(int)] / SPREAD
        wanted_half = (wanted**2).sum(axis=1) / 2
        for start in range(0, len(slices), 2**16):
            block = slice(start, start + 2**16)
            np.nonzero(slices[block] @ wanted.T - half[block, None] >= wanted_half - limit)
    return (time.perf_counter() - started) / ASKED_OF_PEER * len(profiles)


def main(scans: int = SCANS) -> None:
    middle = np.mean([phantom_profile(seed) for seed in range(PHANTOMS)], axis=0)
    profiles = [generated(seed, middle) for seed in range(scans)]
    peer = _peer_seconds(profiles)
    started = time.perf_counter()
    index = TwinIndex()
    for number, profile in enumerate(profiles):
        index.put(str(number), profile)
    pairs = [
        (number, match.name)
        for number, matches in enumerate(index.find_each(profiles))
        for match in matches
        if match.name != str(number)
    ]
    ours = time.perf_counter() - started
    print(f"{scans} scans, {sum(map(len, profiles))} slices: {len(pairs)} ordered pairs found")
    record("twins", ours, peer, "s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SCANS)
