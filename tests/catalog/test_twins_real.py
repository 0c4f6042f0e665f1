"""Twins among real scans: each kind of copy of each scan is found, and different scans are not paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from twin_copies import copies, resampled

from catalog.twins import TwinIndex
from imaging.fingerprint import axis_profiles, slice_profile
from imaging.nifti import read_nifti
from imaging.resample import orient_ras
from imaging.volume import Volume

pytestmark = pytest.mark.real_data
SCANS = ("crlm_ct_1004_unlabelled", "ibsi_lung_tumour", "totalsegmentator_example")


def test_each_copy_of_a_real_scan_is_found_and_no_other_scan(real_data: Path) -> None:
    index = TwinIndex()
    scans = {}
    for name in SCANS:
        image = orient_ras(read_nifti(real_data / name / "ct.nii.gz"))
        scans[name] = image.with_array(np.maximum(image.array, -1024))
        index.put(name, slice_profile(scans[name]))
    wrong = []
    for name, image in scans.items():
        changed = copies(image, 1)
        if np.linalg.norm(image.affine[:3, 0]) < 2:  # coarser voxels change too much where they are made finer
            changed["resampled to 1 mm"] = resampled(image, (1.0, 1.0, 1.0))
        changed["resampled to 1.5 mm in the slice"] = resampled(image, (3.2, 3.2, 3.0))
        for change, hu in changed.items():
            profiles = [profile for profile in axis_profiles(Volume(hu, np.eye(4))) if profile is not None]
            found = {match.name for matches in index.find_each(profiles) for match in matches}
            wrong += [] if found == {name} else [(name, change, found)]
    assert wrong == []
