"""Every known peculiarity of a data set, by name: what the card declares about it and what becomes of such a case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.card_twins import scan_groups
from datasets_registry.cards import Card, list_cards, load_card
from datasets_registry.guards import check_set
from datasets_registry.label_map import native_to_bits
from datasets_registry.layouts import CaseFiles, Listing, reader_for
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.errors import BadInput
from imaging.nifti import write_nifti
from imaging.resample import orient_ras
from imaging.volume import Volume

SHAPE = (12, 6, 5)
AFFINE = np.array([[3.0, 0, 0, -16.5], [0, 4.0, 0, 10], [0, 0, 5.0, -7], [0, 0, 0, 1]])  # 0.06 ml a voxel
MIDDLE = np.zeros(SHAPE[2])  # world x = 0; voxels 6.. are the patient's right
EIGHT = {"spleen", "left_kidney", "gall_bladder", "esophagus", "liver", "stomach", "pancreas", "duodenum"}


def touch(root: Path, *names: str) -> Path:
    """Make empty files: listing a folder reads none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(card: Card, root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the native ids of the usable cases, and native id -> code of the refused."""
    listing = reader_for(card).list_cases(root, card)
    return [case.native_id for case in listing.cases], {name: problem.code for name, problem in listing.problems}


def label_of(values: dict[int, tuple[slice, slice, slice]]) -> Volume:
    array = np.zeros(SHAPE, dtype=np.uint8)
    for value, box in values.items():
        array[box] = value
    return Volume(array, AFFINE)


def at(x: int, z: int = 2) -> tuple[slice, slice, slice]:
    return (slice(x, x + 2), slice(2, 4), slice(z, z + 1))


def found_in(bits: Any, names: Iterable[str]) -> set[str]:
    return {name for name in names if get_channel(bits, class_info(name).channel).any()}


# ---- false voxel spacing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card_id", "false", "fine"),
    [
        ("lits", ["28", "37", "47"], ["27", "48", "130"]),
        ("msd_liver", ["28", "47"], ["27", "48"]),
        ("ct_org", ["28", "47"], ["27", "48", "131"]),
        (
            "abdomenct_1k",
            ["00078", "00273", "00278", "00280", "00286", "00462", "00574", "00578"],
            ["00077", "00279", "00287", "00463", "00573", "00579"],
        ),
    ],
)
def test_scans_of_lits_28_to_47_have_a_false_spacing(card_id: str, false: list[str], fine: list[str]) -> None:
    card = load_card(card_id)
    for native_id in false:
        fault = card.spacing_fault(native_id)
        assert fault is not None
        assert "true spacing is lost" in fault.reason
    assert [card.spacing_fault(native_id) for native_id in fine] == [None] * len(fine)
    assert sum(len(fault.case_ids) for fault in card.unreliable_spacing) == 20


# ---- LiTS, MSD -----------------------------------------------------------------------------------------------------


def test_lits_test_volumes_are_left_out(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "Training Batch 1/volume-0.nii",
        "Training Batch 1/segmentation-0.nii",
        "LITS-Challenge-Test-Data/test-volume-59.nii",
    )
    assert listed(load_card("lits"), root) == (["0"], {})


def test_lits_patients_without_a_tumour_agree_with_ircadb_where_they_are_the_same() -> None:
    (lits,), (ircadb,) = load_card("lits").tumour_free_cases, load_card("ircadb_01").tumour_free_cases
    assert len(lits.case_ids) == 131 - 118
    assert [str(int(one) + 27) for one in ircadb.case_ids] == list(lits.case_ids[:5])


def test_copies_of_lits_form_one_group_across_four_data_sets() -> None:
    groups = {key: group for group in scan_groups(map(load_card, list_cards())) for key in group}
    assert groups["lits", "28"] == (("ct_org", "28"), ("ircadb_01", "1"), ("lits", "28"), ("msd_liver", "28"))
    assert groups["ircadb_01", "20"] == groups["lits", "47"]
    assert groups["lits", "0"] == (("ct_org", "0"), ("lits", "0"), ("msd_liver", "0"))
    assert ("ct_org", "131") not in groups
    assert len(set(groups.values())) == 131


def test_duplicates_of_abdomenct_1k_join_the_lits_scan_that_they_are() -> None:
    groups = {key: group for group in scan_groups(map(load_card, list_cards())) for key in group}
    assert groups["abdomenct_1k", "00928"] == (
        ("abdomenct_1k", "00297"),
        ("abdomenct_1k", "00928"),
        ("ct_org", "74"),
        ("lits", "74"),
        ("msd_liver", "74"),
    )
    assert scan_groups([load_card("abdomenct_1k")]) == ((("abdomenct_1k", "00297"), ("abdomenct_1k", "00928")),)


def test_the_task08_tumour_is_no_part_of_the_vessel_and_liver_tumour_stays_unknown() -> None:
    card = load_card("msd_hepatic_vessel")
    result = native_to_bits(label_of({2: at(8)}), card, None)
    assert found_in(result.bits, ["hepatic_vessel_tumor", "hepatic_vessel", "liver", "liver_tumor"]) == {
        "hepatic_vessel_tumor"
    }
    assert result.annotated == ("hepatic_vessel", "hepatic_vessel_tumor")


# ---- KiTS ----------------------------------------------------------------------------------------------------------


def test_kits_axes_run_slice_row_column_and_only_the_affine_tells_left_from_right(tmp_path: Path) -> None:
    # (slice, row, column), anti-diagonal affine: index 0 steps 5 mm down, 1 steps 4 mm to the back, 2 steps 3 mm left
    affine = np.array([[0, 0, -3.0, 16.5], [0, -4.0, 0, 30], [-5.0, 0, 0, 13], [0, 0, 0, 1]])
    image = np.full((5, 6, 12), 40, dtype=np.int16)
    image[0, 0, 0] = -900
    label = np.zeros((5, 6, 12), dtype=np.uint8)
    label[2, 2:4, 1:3] = 1  # low column: world x > 0, the patient's right
    label[2, 2:4, 2] = 2
    folder = tmp_path / "dataset" / "case_00003"
    folder.mkdir(parents=True)
    write_nifti(Volume(image, affine), folder / "imaging.nii.gz")
    write_nifti(Volume(label, affine), folder / "segmentation.nii.gz")
    card = load_card("kits")
    (case,) = reader_for(card).list_cases(tmp_path, card).cases
    raw = reader_for(card).read_case(case, card)
    assert raw.label is not None
    result = native_to_bits(orient_ras(raw.label), card, None, midline_x=np.zeros(5))
    assert found_in(result.bits, card.annotated_classes) == {"right_kidney", "kidney_tumor"}
    assert int(get_channel(result.bits, class_info("right_kidney").channel).sum()) == 4


def test_kits23_has_two_ranges_of_numbers_and_nothing_between(tmp_path: Path) -> None:
    names = ("00000", "00299", "00300", "00400", "00588", "00589")
    files = [f"dataset/case_{n}/{part}.nii.gz" for n in names for part in ("imaging", "segmentation")]
    usable, refused = listed(load_card("kits"), touch(tmp_path, *files))
    assert usable == ["00000", "00299", "00400", "00588"]
    assert refused == {"00300": "unexpected_case", "00589": "unexpected_case"}
    assert len(load_card("kits").case_ids) == 489


def test_kits21_variant_reads_the_majority_labels_of_cases_0_to_299(tmp_path: Path) -> None:
    files = [
        f"kits21/data/case_{n}/{f}" for n in ("00299", "00400") for f in ("imaging.nii.gz", "aggregated_MAJ_seg.nii.gz")
    ]
    card = load_card("kits", variant="kits21")
    assert listed(card, touch(tmp_path, *files)) == (["00299"], {"00400": "unexpected_case"})
    assert "kidney_cyst" in card.annotated_classes


def test_kits19_labels_know_no_cyst_and_stop_at_case_209(tmp_path: Path) -> None:
    card = load_card("kits", variant="kits19")
    root = touch(
        tmp_path,
        "data/case_00209/imaging.nii.gz",
        "data/case_00209/segmentation.nii.gz",
        "data/case_00210/imaging.nii.gz",
    )
    assert listed(card, root) == (["00209", "00210"], {})
    assert card.annotated_in("00209", None) == ("right_kidney", "left_kidney", "kidney_tumor")


# ---- BTCV and Pancreas-CT ------------------------------------------------------------------------------------------


def test_btcv_official_labels_have_no_duodenum() -> None:
    card = load_card("btcv")
    assert len(card.annotated_classes) == 13
    assert "duodenum" not in card.annotated_in("0001", None)
    assert 14 not in card.labels


def test_btcv_gibson_labels_47_cases_of_which_those_above_60_have_eight_organs(tmp_path: Path) -> None:
    card = load_card("btcv", variant="gibson")
    root = touch(
        tmp_path,
        *(f"RawData/{'Testing' if int(n) > 40 else 'Training'}/img/img{n}.nii.gz" for n in card.case_ids),
        *(f"label_btcv_multiorgan/label{n}.nii.gz" for n in card.case_ids if n not in ("0071", "0072", "0073")),
    )
    listing = reader_for(card).list_cases(root, card)
    assert listing.problems == ()
    assert sum(bool(case.label) for case in listing.cases) == 47
    assert [case.native_id for case in listing.cases if not case.label] == ["0071", "0072", "0073"]
    assert len(card.annotated_in("0040", None)) == 14
    assert set(card.annotated_in("0061", None)) == EIGHT


def test_a_value_outside_the_eight_organs_sets_nothing_from_case_61_on() -> None:
    card = load_card("btcv", variant="gibson")
    label = label_of({2: at(8), 3: at(1), 6: at(9, 4)})  # right kidney, left kidney, liver
    late = native_to_bits(label, card, None, annotated=card.annotated_in("0061", None))
    assert found_in(late.bits, card.annotated_classes) == {"left_kidney", "liver"}
    assert set(late.annotated) == EIGHT
    early = native_to_bits(label, card, None, annotated=card.annotated_in("0001", None))
    assert found_in(early.bits, card.annotated_classes) == {"right_kidney", "left_kidney", "liver"}


@pytest.mark.parametrize("card_id", ["btcv", "pancreas_ct"])
def test_gibson_labels_carry_the_flag_of_the_cropping_boxes(card_id: str) -> None:
    card = load_card(card_id, variant="gibson")
    flag = "label_maybe_incomplete: Gibson labels may stop at the box listed in cropping.csv"
    labelled = [one for one in card.case_ids if one not in card.unlabelled_case_ids]
    assert all(flag in card.flags_of(native_id) for native_id in labelled)
    assert all(flag not in card.flags_of(native_id) for native_id in card.unlabelled_case_ids)
    assert not any("cropping" in text for text in load_card(card_id, variant="official").flags_of(labelled[0]))


def test_pancreas_ct_variants_know_eight_organs_or_the_pancreas() -> None:
    assert set(load_card("pancreas_ct").annotated_classes) == EIGHT
    official = load_card("pancreas_ct", variant="official")
    assert (official.annotated_classes, len(official.case_ids)) == (("pancreas",), 80)
    gibson = load_card("pancreas_ct", variant="gibson")
    assert len(set(gibson.case_ids) - set(gibson.unlabelled_case_ids)) == 42


def test_withdrawn_pancreas_cases_are_refused_even_where_only_the_gibson_label_is_left(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "Pancreas-CT/PANCREAS_0002/study/series/1-01.dcm",
        "label_tcia_multiorgan/label0002.nii.gz",
        "label_tcia_multiorgan/label0025.nii.gz",
        "Pancreas-CT/PANCREAS_0070/study/series/1-01.dcm",
    )
    assert listed(load_card("pancreas_ct"), root) == (["0002"], {"0025": "faulty_case", "0070": "faulty_case"})


def test_pancreas_cases_that_another_converter_leaves_out_ask_for_a_look() -> None:
    for variant in ("gibson", "official"):
        card = load_card("pancreas_ct", variant=variant)
        flagged = [one for one in card.case_ids if any(text.startswith("look_first") for text in card.flags_of(one))]
        assert flagged == ["0007", "0027", "0032", "0045"]


# ---- AMOS, WORD, CT-ORG, AbdomenCT-1K ------------------------------------------------------------------------------


def test_amos_numbers_above_500_are_mri_until_5000(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        *(
            f"amos22/{part}Tr/amos_{n}.nii.gz"
            for n in ("0001", "0500", "0507", "0600")
            for part in ("images", "labels")
        ),
        *(f"unlabeled/amos_{n}.nii.gz" for n in ("5000", "5437", "5514", "6899")),
        "__MACOSX/amos22/imagesTr/amos_0001.nii.gz",
    )
    usable, refused = listed(load_card("amos22_ct"), root)
    assert usable == ["0001", "0500", "5000", "6899"]
    assert refused == {"0507": "modality", "0600": "modality", "5437": "faulty_case", "5514": "faulty_case"}


def test_amos_value_15_is_prostate_and_uterus() -> None:
    assert load_card("amos22_ct").labels[15].classes == ("prostate_or_uterus",)


def test_word_is_left_first_for_kidneys_and_femurs() -> None:
    card = load_card("word")
    label = label_of({3: at(1), 4: at(8), 15: at(1, 0), 16: at(8, 0)})
    bits = native_to_bits(label, card, None, midline_x=MIDDLE).bits
    for name, x in [("left_kidney", 1), ("right_kidney", 8), ("left_head_of_femur", 1), ("right_head_of_femur", 8)]:
        assert np.argwhere(get_channel(bits, class_info(name).channel))[:, 0].min() == x, name


def test_the_relabelled_lits_scans_of_word_are_left_out(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "WORD-V0.1.0/imagesTr/word_0002.nii.gz",
        "WORD-V0.1.0/labelsTr/word_0002.nii.gz",
        "WORD-V0.1.0/imagesTr/liver_5_word_0000.nii.gz",
        "WORD-V0.1.0/lits20/liver_6_word_0000.nii.gz",
    )
    assert listed(load_card("word"), root) == (["0002"], {})


def test_word_official_parts_are_disjoint_and_leave_100_for_training() -> None:
    card = load_card("word")
    val, test = (set(card.official_splits[part]) for part in ("val", "test"))
    assert (len(val), len(test), len(val & test)) == (20, 30, 0)
    assert len(set(card.case_ids) - val - test) == 100


def test_ct_org_lungs_are_automatic_in_the_training_part() -> None:
    card = load_card("ct_org")
    assert card.quality_in("0") == {"right_lung": "manual", "left_lung": "manual"}
    assert card.quality_in("21") == {"right_lung": "automatic", "left_lung": "automatic"}
    assert "automatic_labels: right_lung, left_lung" in card.flags_of("21")
    assert card.flags_of("0") == ()


def test_ct_org_cases_that_others_drop_or_correct_are_flagged() -> None:
    card = load_card("ct_org")
    codes = {one: {text.partition(":")[0] for text in card.flags_of(one)} for one in card.case_ids}
    assert [one for one in card.case_ids if "left_out_elsewhere" in codes[one]] == ["19", "70", "74", "76"]
    doubted = [one for one in card.case_ids if "affine_doubted" in codes[one]]
    assert doubted == ["20", "131", "133", "135", "136", "137", "138", "139"]


def test_abdomenct_1k_cases_without_a_spleen_say_so() -> None:
    card = load_card("abdomenct_1k")
    assert [one for one in card.case_ids if card.flags_of(one)] == ["00219", "00656"]
    assert card.flags_of("00219")[0].startswith("organ_absent: no spleen")


def test_abdomenct_1k_holds_62_scans_without_a_mask() -> None:
    card = load_card("abdomenct_1k")
    assert len(card.case_ids) - len(card.unlabelled_case_ids) == 1000
    assert "00274" in card.unlabelled_case_ids


# ---- AbdomenCT-12organ and FLARE -----------------------------------------------------------------------------------


def organ12(*labels: Volume) -> tuple[Listing, Any]:
    """Return a listing of cases 0001.. and a reader of the labels given."""
    cases = [CaseFiles("abdomenct_12organ", f"{n:04d}", (Path("i"),), (Path("l"),)) for n in range(1, len(labels) + 1)]
    return Listing(tuple(cases)), lambda files: labels[int(files.native_id) - 1]


def celiac(voxels: int) -> Volume:
    """Return a label whose value 12 has so many voxels of 0.06 ml."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array.reshape(-1)[:voxels] = 12
    return Volume(array, AFFINE)


def test_the_flare22_archive_is_refused_as_abdomenct_12organ_by_value_13() -> None:
    listing, read = organ12(label_of({12: at(2)}), label_of({1: at(8), 13: at(1)}))
    with pytest.raises(BadInput, match=r"value 13 in abdomenct_12organ/0002 \(4 voxels\)") as caught:
        check_set(listing, load_card("abdomenct_12organ"), read)
    assert caught.value.code == "wrong_archive"


def test_a_celiac_trunk_of_the_size_of_a_duodenum_gives_the_wrong_archive_away() -> None:
    card = load_card("abdomenct_12organ")
    # 330 voxels are 19.8 ml, 340 are 20.4 ml; the median of three counts, not one patient
    check_set(*swap(card, organ12(celiac(330), celiac(330), celiac(340))))
    with pytest.raises(
        BadInput, match=r"value 12 \(celiac trunk\) of 20\.4 ml in the median of 3 labels.*at most 20 ml"
    ):
        check_set(*swap(card, organ12(celiac(330), celiac(340), celiac(350))))


def swap(card: Card, listed_and_read: tuple[Listing, Any]) -> tuple[Listing, Card, Any]:
    return listed_and_read[0], card, listed_and_read[1]


def test_the_guard_reads_files_before_any_case_and_leaves_unreadable_ones_to_their_case(tmp_path: Path) -> None:
    card = load_card("abdomenct_12organ")
    folder = tmp_path / "13_AbdomenCT-12organ"
    root = touch(tmp_path, *(f"13_AbdomenCT-12organ/img/Organ12_000{n}_0000.nii.gz" for n in (1, 2)))
    (folder / "label").mkdir()
    (folder / "label" / "Organ12_0001.nii.gz").write_bytes(b"<html>log in</html>")
    write_nifti(label_of({1: at(8)}), folder / "label" / "Organ12_0002.nii.gz")
    listing = reader_for(card).list_cases(root, card)
    check_set(listing, card)
    write_nifti(label_of({13: at(1)}), folder / "label" / "Organ12_0002.nii.gz")
    with pytest.raises(BadInput, match="value 13 in abdomenct_12organ/0002"):
        check_set(listing, card)


def test_a_card_without_a_guard_reads_nothing() -> None:
    listing, _ = organ12(celiac(1))
    check_set(listing, load_card("lits"), lambda files: pytest.fail(f"label of {files.where} was read"))


def test_flare_value_14_is_no_class_and_makes_nothing_known() -> None:
    card = load_card("flare23_pool")
    assert card.labels[14].reached == ()
    assert card.annotated_in("0001", frozenset({14})) == ()
    bits = native_to_bits(label_of({14: at(8)}), card, None, annotated=()).bits
    assert not bits.any()
    assert 14 not in load_card("flare22").labels


def test_flare23_labels_are_partial_so_only_values_that_occur_are_known(tmp_path: Path) -> None:
    card = load_card("flare23_pool")
    (tmp_path / "imagesTr2200").mkdir()
    (tmp_path / "labelsTr2200").mkdir()
    image = np.full(SHAPE, 40, dtype=np.int16)
    image[0, 0, 0] = -900
    write_nifti(Volume(image, AFFINE), tmp_path / "imagesTr2200" / "FLARE23_0007_0000.nii.gz")
    write_nifti(label_of({1: at(8), 13: at(1), 14: at(9, 4)}), tmp_path / "labelsTr2200" / "FLARE23_0007.nii.gz")
    touch(tmp_path, "unlabeledTr1800/FLARE23_2201_0000.nii.gz")
    listing = reader_for(card).list_cases(tmp_path, card)
    assert [(case.native_id, bool(case.label)) for case in listing.cases] == [("0007", True), ("2201", False)]
    raw = reader_for(card).read_case(listing.cases[0], card)
    assert raw.present_values == {1, 13, 14}
    assert card.annotated_in("0007", raw.present_values) == ("left_kidney", "liver")
    assert raw.label is not None
    result = native_to_bits(orient_ras(raw.label), card, None, annotated=card.annotated_in("0007", raw.present_values))
    assert (result.annotated, found_in(result.bits, card.annotated_classes)) == (
        ("left_kidney", "liver"),
        {"left_kidney", "liver"},
    )


def test_a_reader_that_does_not_say_what_is_present_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"flare23_pool/0001: annotation_rule is present.*RawCase\.present_values"):
        load_card("flare23_pool").annotated_in("0001", None)


def test_the_unlabelled_pool_of_flare22_needs_no_labels(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "FLARE22Train/images/FLARE22_Tr_0001_0000.nii.gz",
        "FLARE22Train/labels/FLARE22_Tr_0001.nii.gz",
        "FLARE22Train/images/FLARE22_Tr_0002_0000.nii.gz",
        "Training/part1/Case_00001_0000.nii.gz",
        "Validation/FLARETs_0001_0000.nii.gz",
    )
    usable, refused = listed(load_card("flare22"), root)
    assert usable == ["Case_00001", "FLARE22_Tr_0001", "FLARETs_0001"]
    assert refused == {"FLARE22_Tr_0002": "label_missing"}


# ---- 3D-IRCADb and TotalSegmentator --------------------------------------------------------------------------------


def values_of(card: Card, *names: str) -> frozenset[int]:
    return frozenset(value for value, label in card.labels.items() if label.name in names)


def test_ircadb_patients_know_the_structures_that_they_ship_and_liver_tumours_always() -> None:
    card = load_card("ircadb_01")
    shipped = values_of(card, "liver", "rightkidney", "lungs")
    assert card.annotated_in("5", shipped) == ("right_kidney", "liver", "right_lung", "left_lung", "liver_tumor")
    assert card.annotated_in("5", values_of(card, "liver", "leftlung")) == ("liver", "left_lung", "liver_tumor")
    assert card.annotated_in("5", values_of(card, "liver", "portalvein")) == ("liver", "liver_tumor")
    assert any(text.startswith("undecided_structure") for text in card.flags_of("7"))


def test_totalsegmentator_maps_no_femur_and_no_prostate() -> None:
    for card in (load_card("totalsegmentator_v1"), load_card("totalsegmentator_v2")):
        names = {label.name for label in card.labels.values()}
        assert not {"femur_left", "femur_right", "prostate"} & names
        assert not {"left_head_of_femur", "right_head_of_femur", "prostate_or_uterus"} & set(card.annotated_classes)


def test_totalsegmentator_v1_has_a_corrupt_case_and_no_cysts(tmp_path: Path) -> None:
    card = load_card("totalsegmentator_v1")
    masks = [
        f"Totalsegmentator_dataset/{s}/segmentations/{v.name}.nii.gz"
        for s in ("s0000", "s0864")
        for v in card.labels.values()
    ]
    root = touch(tmp_path, *(f"Totalsegmentator_dataset/{s}/ct.nii.gz" for s in ("s0000", "s0864")), *masks)
    assert listed(card, root) == (["s0000"], {"s0864": "faulty_case"})
    assert "kidney_cyst" not in card.annotated_classes
    assert "kidney_cyst" in load_card("totalsegmentator_v2").annotated_classes


def test_totalsegmentator_cases_with_voids_or_noise_carry_a_flag() -> None:
    for card_id in ("totalsegmentator_v1", "totalsegmentator_v2"):
        codes = {case: load_card(card_id).flags_of(case)[0].partition(":")[0] for case in ("s0036", "s0149", "s0067")}
        assert codes == {"s0036": "noisy_labels", "s0149": "noisy_labels", "s0067": "rotated"}


def test_totalsegmentator_v2_known_bad_labels_are_refused() -> None:
    assert set(load_card("totalsegmentator_v2").faults) == {"s0092", "s0201", "s0513", "s0605"}


def test_totalsegmentator_classes_with_another_meaning_are_scored_apart() -> None:
    for card_id in ("totalsegmentator_v1", "totalsegmentator_v2"):
        card = load_card(card_id)
        quality = card.quality_in("s0000")
        assert {name for name, how in quality.items() if how == "restricted"} == {"aorta", "colon", "intestine"}
        assert {name for name, how in quality.items() if how == "model_assisted"} == (
            set(card.annotated_classes) - {"aorta", "colon", "intestine"}
        )
        assert card.flags_of("s0000") == ()


def test_a_lung_with_a_missing_lobe_is_unknown_not_small() -> None:
    card = Card(**{**load_card("totalsegmentator_v2").model_dump(), "annotation_rule": "present"})
    lobes = values_of(card, "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right")
    assert card.annotated_in("s0000", lobes) == ("left_lung",)


# ---- promises about the quirks themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("card_id", list_cards())
def test_every_quirk_says_how_it_is_handled_or_why_not(card_id: str) -> None:
    silent = [quirk.fact for quirk in load_card(card_id).quirks if not quirk.handling]
    assert silent == []


def test_chaos_has_twenty_labelled_ct_and_its_mri_is_not_seen(tmp_path: Path) -> None:
    card = load_card("chaos_ct")
    root = touch(
        tmp_path,
        *(
            f"Train_Sets/{kind}/1/{part}"
            for kind in ("CT", "MR")
            for part in ("DICOM_anon/i0.dcm", "Ground/liver_GT_000.png")
        ),
        "Train_Sets/CT/3/DICOM_anon/i0.dcm",
    )
    assert len(card.case_ids) == 20
    assert listed(card, root) == (["1"], {"3": "unexpected_case"})
