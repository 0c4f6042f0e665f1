"""The phantom: every class plausible in size, on its side, inside its parents, and the same body on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from datasets_registry.miniatures.lesions import KINDS
from datasets_registry.miniatures.phantom import Anatomy, make_anatomy, render
from datasets_registry.miniatures.scans import FIELD_MM
from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import Bits, count_voxels, get_channel
from imaging.volume import Volume

SEEDS = (0, 1, 2, 3)
ALL_LESIONS = dict.fromkeys(KINDS, 1)


def ras_grid(spacing_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [low for low, _ in FIELD_MM]
    x, y, z = (int((high - low) / spacing_mm) + 1 for low, high in FIELD_MM)
    return (x, y, z), affine


@pytest.fixture(scope="module")
def scans() -> list[tuple[Anatomy, Volume, Bits]]:
    """Four whole scans at 6 mm, each with one lesion of every class."""
    made = []
    for seed in SEEDS:
        anatomy = make_anatomy(seed, ALL_LESIONS)
        made.append((anatomy, *render(anatomy, *ras_grid(6.0), seed=seed)))
    return made


def mask_of(bits: Bits, name: str) -> np.ndarray:
    return get_channel(bits, class_info(name).channel)


def test_every_class_has_a_plausible_volume(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    for _, image, bits in scans:
        volumes = count_voxels(bits, len(all_classes())) * image.voxel_ml
        for info in all_classes():
            low, high = info.volume_ml
            assert low <= volumes[info.channel] <= high, info.name


def test_sides_are_anatomical(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    for _, image, bits in scans:
        for info in all_classes():
            x = image.world_mm(np.argwhere(mask_of(bits, info.name)))[:, 0].mean()
            if info.side is not None:
                assert x > 15 if info.side == "right" else x < -15, info.name
        middle = {name: image.world_mm(np.argwhere(mask_of(bits, name))).mean(axis=0) for name in ("liver", "spleen")}
        assert middle["liver"][0] > 30
        assert middle["spleen"][0] < -60


def test_organs_lie_above_each_other_as_in_a_patient(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    for _, image, bits in scans:
        height = {i.name: image.world_mm(np.argwhere(mask_of(bits, i.name)))[:, 2].mean() for i in all_classes()}
        order = ("left_lung", "spleen", "left_kidney", "intestine", "bladder")
        assert [height[name] for name in order] == sorted((height[name] for name in order), reverse=True)
        assert height["left_adrenal_gland"] > height["left_kidney"]


def test_classes_are_disjoint_but_for_what_lies_inside_an_organ(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    allowed = {
        frozenset({info.name, parent})
        for info in all_classes()
        for parent in (info.parents or (("liver",) if info.is_lesion else ()))
    }
    for _, _, bits in scans:
        masks = {info.name: mask_of(bits, info.name) for info in all_classes()}
        for a, first in masks.items():
            for b, second in masks.items():
                if a < b and (first & second).any():
                    assert frozenset({a, b}) in allowed, (a, b)


def test_lesions_and_liver_vessels_lie_inside_their_parents(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    for _, _, bits in scans:
        for info in all_classes():
            parents = info.parents or (("liver",) if info.is_lesion else ())
            if parents:
                inside = np.any([mask_of(bits, parent) for parent in parents], axis=0)
                assert not (mask_of(bits, info.name) & ~inside).any(), info.name


def test_tissues_have_the_hu_of_a_venous_ct(scans: list[tuple[Anatomy, Volume, Bits]]) -> None:
    expected = {"liver": (85, 140), "right_lung": (-900, -780), "bladder": (-10, 25), "aorta": (140, 220)}
    for _, image, bits in scans:
        lesions = np.any([mask_of(bits, name) for name in KINDS], axis=0)
        for name, (low, high) in expected.items():
            assert low < np.median(image.array[mask_of(bits, name) & ~lesions]) < high, name
        liver = np.median(image.array[mask_of(bits, "liver") & ~lesions])
        assert np.median(image.array[mask_of(bits, "liver_tumor")]) < liver - 25
        assert np.median(image.array[0]) == pytest.approx(-1000, abs=30)


def test_any_axis_order_shows_the_same_anatomy() -> None:
    shape, affine = ras_grid(8.0)
    anatomy = make_anatomy(5, dict.fromkeys(KINDS, 0))
    image, bits = render(anatomy, shape, affine, noise_hu=0)
    # array axes S, L, P: index (k, i', j') of the turned grid is (i, j, k) with i' = nx-1-i, j' = ny-1-j
    turn = np.array([[0, -1, 0, shape[0] - 1], [0, 0, -1, shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    turned, turned_bits = render(anatomy, (shape[2], shape[0], shape[1]), affine @ turn, noise_hu=0)
    back = turned_bits.transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    # points that lie on a surface to within rounding may fall on either side of it
    assert np.mean(back != bits) < 1e-4
    # the texture of stool is drawn voxel by voxel, so only the inside of the liver is compared
    core = ndimage.binary_erosion(mask_of(bits, "liver"), iterations=2)
    difference = turned.array.transpose(1, 2, 0)[::-1, ::-1][core].astype(int) - image.array[core]
    assert core.sum() > 500
    assert np.mean(np.abs(difference) > 1) < 0.01


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_body() -> None:
    shape, affine = ras_grid(12.0)
    first, second, other = (render(make_anatomy(seed), shape, affine, seed=seed) for seed in (7, 7, 8))
    assert first[0].array.tobytes() == second[0].array.tobytes()
    assert first[1].tobytes() == second[1].tobytes()
    assert (first[1] != other[1]).mean() > 0.02


def test_requested_lesions_come_and_forbidden_ones_stay_away() -> None:
    anatomy = make_anatomy(3, {**dict.fromkeys(KINDS, 0), "liver_tumor": 3})
    _, bits = render(anatomy, *ras_grid(8.0))
    present = {name for name in KINDS if mask_of(bits, name).any()}
    assert present == {"liver_tumor"}
    assert anatomy.lesions["liver_tumor"] == 3


def test_a_request_for_one_lesion_leaves_the_rest_of_the_body_as_it_is() -> None:
    shape, affine = ras_grid(8.0)
    none = dict.fromkeys(KINDS, 0)
    plain, _ = render(make_anatomy(4, none), shape, affine)
    with_lesion, bits = render(make_anatomy(4, {**none, "lung_tumor": 1}), shape, affine)
    changed = np.argwhere(plain.array != with_lesion.array)
    tumour = np.argwhere(mask_of(bits, "lung_tumor"))
    assert (changed.min(axis=0) >= tumour.min(axis=0) - 1).all()
    assert (changed.max(axis=0) <= tumour.max(axis=0) + 1).all()


def test_lesions_that_cannot_grow_are_refused() -> None:
    with pytest.raises(KeyError, match="brain_tumor"):
        make_anatomy(0, {"brain_tumor": 1})
    with pytest.raises(ValueError, match="-1 lesions"):
        make_anatomy(0, {"lung_tumor": -1})
