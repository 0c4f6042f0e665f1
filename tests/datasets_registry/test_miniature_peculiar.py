"""Peculiar patients and files: what the phantom shows of them, and what the readers and the side split make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets_registry.cards import load_card
from datasets_registry.label_map import native_to_bits
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures import make_anatomy, write_miniature
from datasets_registry.miniatures.case_scans import scan_of
from datasets_registry.miniatures.native_label import native_label
from datasets_registry.miniatures.numbers import case_numbers, native_id_of
from datasets_registry.miniatures.scan_changes import DEEP_PADDING_HU, Scan
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.components import count_components
from imaging.resample import orient_ras
from imaging.volume import Volume

SPACING = (6.0, 6.0, 6.0)


def mask_of(scan: Scan, name: str) -> np.ndarray:
    return get_channel(scan.bits, class_info(name).channel)


def test_a_horseshoe_kidney_is_one_part_that_is_cut_at_the_middle() -> None:
    card = load_card("kits")
    scan = scan_of(card, 401, seed=3, spacing_mm=SPACING)
    both = mask_of(scan, "right_kidney") | mask_of(scan, "left_kidney")
    assert count_components(both) == 1
    label = orient_ras(scan.image.with_array(native_label(scan.bits, card)))
    found = native_to_bits(label, card, orient_ras(scan.image))
    assert found.split_status["right_kidney"] == "cut"
    for name in ("right_kidney", "left_kidney"):
        truth = orient_ras(Volume(mask_of(scan, name), scan.image.affine)).array
        apart = np.count_nonzero(truth ^ get_channel(found.bits, class_info(name).channel))
        assert apart <= 0.05 * np.count_nonzero(truth), name


@pytest.mark.parametrize(
    ("card_id", "number", "missing"),
    [
        ("abdomenct_1k", 219, "spleen"),
        ("btcv", 21, "gall_bladder"),
        ("kits", 400, "left_kidney"),
    ],
)
def test_a_removed_organ_is_absent_and_the_others_stay(card_id: str, number: int, missing: str) -> None:
    scan = scan_of(load_card(card_id), number, seed=3, spacing_mm=(9.0, 9.0, 9.0))
    assert not mask_of(scan, missing).any()
    for name in {"liver", "spleen", "gall_bladder", "right_kidney", "pancreas"} - {missing}:
        assert mask_of(scan, name).any(), name


def test_lungs_of_even_lits_volumes_touch_and_those_of_odd_ones_do_not() -> None:
    for number, parts in ((0, 1), (1, 2)):
        scan = scan_of(load_card("lits"), number, seed=3, spacing_mm=SPACING)
        assert count_components(mask_of(scan, "right_lung") | mask_of(scan, "left_lung")) == parts


def test_padding_far_below_air_is_cleared_by_the_reader(tmp_path: Path) -> None:
    card = load_card("lits")
    assert scan_of(card, 1, seed=3, spacing_mm=(9.0, 9.0, 9.0)).image.array.min() == DEEP_PADDING_HU
    write_miniature("lits", tmp_path / "raw", cases=2, seed=3, truth_folder=tmp_path / "t", spacing_mm=(9.0, 9.0, 9.0))
    case = reader_for(card).list_cases(tmp_path / "raw", card).cases[1]
    raw = reader_for(card).read_case(case, card)
    assert raw.image.array.min() == -1024
    assert "clear_padding" in [step.name for step in raw.image.steps]


def test_lits_patients_without_a_tumour_have_none() -> None:
    for number, present in ((28, True), (32, False)):
        scan = scan_of(load_card("lits"), number, seed=3, spacing_mm=(9.0, 9.0, 9.0))
        assert mask_of(scan, "liver_tumor").any() == present


def test_sets_in_parts_show_every_part_first() -> None:
    def names(card_id: str, cases: int) -> list[str]:
        card = load_card(card_id)
        return [native_id_of(card, number) for number in case_numbers(card, cases, extras=True)]

    assert names("lits", 2) == ["0", "28"]
    assert names("kits", 3) == ["00000", "00400", "00401"]
    assert names("abdomenct_1k", 3) == ["00001", "00401", "00801"]
    assert names("word", 3) == ["0002", "0001", "0014"]
    assert case_numbers(load_card("kits"), 400)[299:301] == [299, 400]


def test_folders_are_those_of_the_archives(tmp_path: Path) -> None:
    for card_id, cases in (("abdomenct_1k", 3), ("word", 3), ("lits", 2), ("totalsegmentator_v2", 1), ("kits", 2)):
        write_miniature(
            card_id, tmp_path / card_id, cases=cases, seed=1, truth_folder=tmp_path / "t", spacing_mm=(12, 12, 12),
            extras=True,
        )  # fmt: skip
    for path in (
        "abdomenct_1k/AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz",
        "abdomenct_1k/AbdomenCT-1K-ImagePart2/AbdomenCT-1K-ImagePart2/Case_00401_0000.nii.gz",
        "abdomenct_1k/AbdomenCT-1K-ImagePart3/Case_00801_0000.nii.gz",
        "abdomenct_1k/Mask/Case_00801.nii.gz",
        "word/WORD-V0.1.0/imagesTr/word_0002.nii.gz",
        "word/WORD-V0.1.0/labelsVal/word_0001.nii.gz",
        "word/WORD-V0.1.0/imagesTs/word_0014.nii.gz",
        "word/WORD-V0.1.0/LiTS/liver_28_word_label.nii.gz",
        "lits/Training Batch 1/volume-0.nii",
        "lits/Training Batch 2/segmentation-28.nii",
        "lits/LITS-Challenge-Test-Data/test-volume-59.nii",
        "totalsegmentator_v2/s0000/segmentations/femur_left.nii.gz",
        "kits/dataset/case_00400/imaging.nii.gz",
        "kits/dataset/kits23.json",
    ):
        assert (tmp_path / path).is_file(), path
    table = (tmp_path / "totalsegmentator_v2" / "meta.csv").read_text(encoding="utf-8").splitlines()
    assert table[0].split(";")[0] == "image_id"
    assert table[1].startswith("s0000;")


def test_an_unknown_peculiarity_is_refused() -> None:
    with pytest.raises(KeyError, match="horseshoe_kidney"):
        make_anatomy(1, peculiar=("third_kidney",))
