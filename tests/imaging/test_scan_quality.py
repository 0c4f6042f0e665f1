"""Each oddity of a scan raises its own flag, and a sound scan none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.trouble import TROUBLES, troubled_patient
from imaging.nifti import read_nifti
from imaging.resample import grid_for, orient_ras, resample_image
from imaging.scan_hu import hu_figures, hu_flags
from imaging.scan_quality import ScanQuality, UsualScans, scan_quality
from imaging.volume import Volume

SEED = 5
USUAL = UsualScans(30, ((3.0, 5.0),) * 3, ((330.0, 400.0), (260.0, 320.0), (180.0, 440.0)))


def on_grid(image: Volume, spacing: float = 6.0) -> Volume:
    image = orient_ras(image)
    on = resample_image(image, grid_for(image, (spacing,) * 3))
    return on.with_array(np.clip(on.array, -1024, 32767).astype(np.int16))


@pytest.fixture(scope="module")
def patient() -> Scan:
    return troubled_patient("quality", SEED, 0)


def quality_of(image: Volume) -> ScanQuality:
    return scan_quality(on_grid(image), (4.3, 4.3, 5.0), USUAL)


def codes(quality: ScanQuality) -> set[str]:
    return {flag.partition(":")[0] for flag in quality.flags}


def test_a_sound_scan_has_no_flag(patient: Scan) -> None:
    quality = quality_of(patient.image)
    assert quality.flags == ()
    assert quality.noise_hu == pytest.approx(10, abs=4)
    assert quality.hu.air_hu == pytest.approx(-1000, abs=25)


@pytest.mark.parametrize(
    ("trouble", "turn", "code"),
    [
        *[("shifted_hu", turn, "hu_shift") for turn in (0, 1, 2, 3)],
        ("shifted_hu", 4, "hu_"),
        ("cropped", 0, "cropped"),
        ("cropped", 1, "cropped"),
        ("noise", 0, "noise"),
        ("metal", 0, "metal"),
        ("metal", 1, "metal"),
    ],
)
def test_each_trouble_raises_its_own_flag_and_no_other(trouble: str, turn: int, code: str) -> None:
    found = codes(quality_of(TROUBLES[trouble]("quality", SEED, turn).scan.image))
    assert found
    assert all(one.startswith(code) for one in found)


def test_a_flag_says_what_was_found_and_what_is_usual(patient: Scan) -> None:
    slab = on_grid(patient.image)
    slab = Volume(slab.array[:, :, :12], slab.affine)
    (flag,) = scan_quality(slab, (4.3, 4.3, 5.0), USUAL).flags
    assert flag == "cropped: 72 mm along the body, the 30 training scans have 180 to 440 mm"
    (flag,) = scan_quality(on_grid(patient.image), (4.3, 4.3, 9.0), USUAL).flags
    assert flag == "spacing: 9.00 mm along the body, the 30 training scans have 3.00 to 5.00 mm"


def test_arms_beside_the_trunk_are_remarked_on(patient: Scan) -> None:
    image = on_grid(patient.image)
    array = image.array.copy()
    # an arm of 8 x 8 voxels with a bone of 2 x 2, free of the trunk, in a wider field of view
    wider = np.full((array.shape[0] + 24, *array.shape[1:]), -1000, dtype=np.int16)
    wider[: array.shape[0]] = array
    wider[-12:-4, 20:28, :20] = 40
    wider[-9:-7, 23:25, :20] = 700
    quality = scan_quality(Volume(wider, image.affine), (4.3, 4.3, 5.0), USUAL)
    assert codes(quality) == {"arms"}
    assert quality.arms_mm == 120


def test_a_clipped_scan_is_told_by_its_piled_up_ends(patient: Scan) -> None:
    windowed = patient.image.with_array(np.clip(patient.image.array, -160, 240).astype(np.int16))
    assert "hu_clipped" in codes(quality_of(windowed))


def tissues(*amounts: tuple[float, int], size: int = 24) -> np.ndarray:
    """A cube of air around tissue of the given (HU, voxels)."""
    array = np.full((size, size, size), -1000, dtype=np.int16)
    values = np.concatenate([np.full(count, hu, dtype=np.int16) for hu, count in amounts])
    inner = array[2:-2, 2:-2].flatten()
    inner[: len(values)] = values
    array[2:-2, 2:-2] = inner.reshape(array[2:-2, 2:-2].shape)
    return array


@pytest.mark.parametrize("amounts", [((-100, 4000), (50, 500)), ((-100, 100), (50, 4000)), ((130, 3000), (60, 1000))])
def test_fat_and_lean_patients_are_no_shift(amounts: tuple[tuple[float, int], ...]) -> None:
    flags = hu_flags(hu_figures(tissues(*amounts)))
    assert all(flag.startswith("hu_clipped") for flag in flags)  # as few values as here pile up at the end


def test_where_tissue_lies_tells_the_offset() -> None:
    found = hu_figures(tissues((-100 - 200, 2000), (50 - 200, 3000)))
    assert -250 <= found.shift_hu <= -150
    assert hu_flags(found)[0].startswith("hu_scale: fat and soft tissue -")  # the air has stayed where it is


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["crlm_ct_1004_unlabelled", "totalsegmentator_example"])
def test_a_real_scan_raises_no_hard_flag(real_data: Path, name: str) -> None:
    image = orient_ras(read_nifti(real_data / name / "ct.nii.gz"))
    quality = scan_quality(on_grid(image, 3.0), image.spacing_mm)
    assert not [code for code in codes(quality) if code.startswith("hu_")]
    assert "noise" not in codes(quality)
