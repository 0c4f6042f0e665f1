"""Leakage: all planted twins are found and strangers are not, among generated patients of varied build.

CTFACTORY_PROOF_SCANS sets how many patients there are (2000: some five minutes).
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from twin_copies import copies, patient_scan, resampled

from catalog.twins import TwinIndex
from imaging.fingerprint import axis_profiles, slice_profile
from imaging.volume import Volume

SCANS = int(os.environ.get("CTFACTORY_PROOF_SCANS", "80"))
PLANTED = max(8, SCANS // 10)
FALSE_PAIRS = 0.001
FINE_MM = (3.0, 3.0, 5.0)
FINE_SEEDS = range(100_000, 100_004)


@pytest.fixture(scope="module")
def index() -> TwinIndex:
    known = TwinIndex()
    for seed in range(SCANS):
        known.put(f"{seed}", slice_profile(patient_scan(seed)))
    assert len(known.profiles) == SCANS
    return known


def alike(index: TwinIndex, hu: np.ndarray) -> set[str]:
    """Return what ingest finds for voxels whose header says RAS: all three axes are looked up."""
    profiles = [profile for profile in axis_profiles(Volume(hu, np.eye(4))) if profile is not None]
    return {match.name for matches in index.find_each(profiles) for match in matches}


def test_every_copy_is_found_and_hardly_a_stranger(index: TwinIndex) -> None:
    missed, strangers, asked = [], 0, 0
    for seed in range(PLANTED):
        for change, hu in copies(patient_scan(seed), seed).items():
            found = alike(index, hu)
            missed += [] if f"{seed}" in found else [(seed, change)]
            strangers += len(found - {f"{seed}"})
            asked += 1
    assert missed == []
    assert strangers <= FALSE_PAIRS * asked * (SCANS - 1)


def test_strangers_are_not_paired(index: TwinIndex) -> None:
    names = list(index.profiles)
    found = list(index.find_each(list(index.profiles.values())))
    pairs = sum(match.name != name for name, matches in zip(names, found, strict=True) for match in matches)
    assert all(name in {match.name for match in matches} for name, matches in zip(names, found, strict=True))
    assert pairs <= FALSE_PAIRS * SCANS * (SCANS - 1)


@pytest.mark.parametrize("to_mm", [(3.75, 3.75, 1.0), (3.0, 3.0, 2.0), (2.5, 2.5, 5.0)])
def test_resampled_copies_are_found(index: TwinIndex, to_mm: tuple[float, float, float]) -> None:
    """The steps of a 0.8 mm scan resampled to 1 mm, on voxels that a test can afford."""
    scans = {f"fine {seed}": patient_scan(seed, FINE_MM) for seed in FINE_SEEDS}
    for name, scan in scans.items():
        index.put(name, slice_profile(scan))
    assert [alike(index, resampled(scan, to_mm)) for scan in scans.values()] == [{name} for name in scans]
    for name in scans:
        index.put(name, None)
