"""Twins: copies of one scan in several sets show the same voxels, up to the change that is stated for them."""

from __future__ import annotations

import numpy as np
import pytest

from datasets_registry.cards import load_card
from datasets_registry.miniatures import miniature_cards, twin_groups
from datasets_registry.miniatures.case_scans import scan_of
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.twins import origin_of
from imaging.resample import orient_ras
from imaging.volume import Volume

SPACING = (9.0, 9.0, 10.0)


def scan(card_id: str, number: int) -> Scan:
    return scan_of(load_card(card_id), number, seed=7, spacing_mm=SPACING)


def upright(one: Scan) -> Volume:
    return orient_ras(one.image)


def test_msd_liver_shows_the_voxels_of_lits() -> None:
    original, copy = scan("lits", 28), scan("msd_liver", 28)
    assert np.array_equal(original.image.array, copy.image.array)
    assert np.array_equal(original.image.affine, np.eye(4))
    assert np.array_equal(copy.image.affine, np.eye(4))
    assert np.array_equal(original.bits, copy.bits)


@pytest.mark.parametrize("number", [0, 1, 28])
def test_ct_org_stores_the_scan_of_lits_in_another_axis_order(number: int) -> None:
    original, copy = scan("lits", number), scan("ct_org", number)
    assert not np.array_equal(original.image.affine, copy.image.affine)
    np.testing.assert_allclose(upright(original).affine, upright(copy).affine, atol=1e-9)
    assert np.array_equal(upright(original).array, upright(copy).array)
    word = [orient_ras(Volume(one.bits[0], one.image.affine)).array for one in (original, copy)]
    assert np.array_equal(*word)


def test_ircadb_is_the_scan_of_lits_with_its_spacing_and_fewer_slices() -> None:
    original, copy = upright(scan("lits", 28)), upright(scan("ircadb_01", 1))
    assert original.spacing_mm == (1.0, 1.0, 1.0)
    assert copy.spacing_mm == pytest.approx(SPACING)
    lowest = original.shape[2] // 6
    assert np.array_equal(copy.array, original.array[:, :, lowest:-1])


def test_a_cropped_copy_keeps_every_voxel_in_its_place() -> None:
    original, copy = upright(scan("pancreas_ct", 2)), upright(scan("abdomenct_1k", 801))
    lowest = original.shape[2] // 6
    assert np.array_equal(copy.array, original.array[:, :, lowest:-1])
    np.testing.assert_allclose(copy.affine[:3, 3], original.world_mm(np.array([[0, 0, lowest]]))[0], atol=1e-9)


def test_a_windowed_copy_loses_what_lies_beyond_the_window() -> None:
    original, copy = scan("kits", 0).image, scan("abdomenct_1k", 401).image
    assert original.array.max() > 400
    assert np.array_equal(copy.array, np.clip(original.array, -1000, 400))


def test_groups_of_the_first_cases() -> None:
    assert sorted(map(sorted, twin_groups(1))) == [
        ["abdomenct_12organ/0001", "abdomenct_1k/00001", "flare22/FLARE22_Tr_0001", "msd_pancreas/001"],
        ["ct_org/0", "lits/0", "msd_liver/0"],
        ["flare23_pool/0001", "msd_colon/001"],
        ["totalsegmentator_v1/s0000", "totalsegmentator_v2/s0000"],
    ]
    two = twin_groups(2)
    assert {"lits/28", "msd_liver/28", "ct_org/28", "ircadb_01/1"} in two
    assert {"kits/00000", "abdomenct_1k/00401"} in two
    assert {"flare23_pool/0002", "amos22_ct/0001"} in two
    six = twin_groups(6)
    assert {"abdomenct_1k/00297", "abdomenct_1k/00928", "lits/74", "msd_liver/74", "ct_org/74"} in six
    for groups in (two, six):
        members = [case for group in groups for case in group]
        assert len(set(members)) == len(members)
        assert min(map(len, groups)) > 1


def test_no_copy_is_made_of_a_copy() -> None:
    for card in miniature_cards():
        for number in range(1001):
            origin = origin_of(card.id, number)
            assert origin is None or origin_of(origin.card_id, origin.number) is None


def test_twins_are_those_that_the_cards_declare_by_number() -> None:
    declared = 0
    for card in miniature_cards():
        for overlap in card.overlaps:
            for here, there in overlap.pairs:
                scans = []
                for card_id, native_id in ((card.id, here), (overlap.dataset, there)):
                    origin = origin_of(card_id, int(native_id))
                    scans.append((card_id, int(native_id)) if origin is None else (origin.card_id, origin.number))
                assert scans[0] == scans[1], f"{card.id}/{here} and {overlap.dataset}/{there}"
                declared += 1
    assert declared >= 131 + 20
