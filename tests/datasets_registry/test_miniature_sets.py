"""Miniatures: each set's own reader reads them, and its label map gives back the truth of the annotated classes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest

from datasets_registry.cards import load_card
from datasets_registry.label_map import native_to_bits
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures import MINIATURE_SETS, write_external, write_miniature
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.resample import orient_ras
from imaging.volume import Volume

FIRST_IDS = {
    "btcv": ["0001", "0002"],
    "kits": ["00000", "00001"],
    "chaos_ct": ["1", "2"],
    "msd_pancreas": ["001", "002"],
    "pancreas_ct": ["0002", "0003"],
}
COARSE = (7.0, 7.0, 8.0)


def assert_reads_back(card_id: str, root: Path, truth: Path, native_ids: list[str]) -> None:
    card = load_card(card_id)
    reader = reader_for(card)
    listing = reader.list_cases(root, card)
    assert [case.native_id for case in listing.cases] == native_ids
    assert listing.problems == ()
    for case in listing.cases:
        raw = reader.read_case(case, card)
        assert raw.label is not None
        image, label = orient_ras(raw.image), orient_ras(raw.label)
        found = native_to_bits(label, card, image)
        with np.load(truth / card_id / f"{case.native_id}.npz") as stored:
            words = [orient_ras(Volume(word, stored["affine"])) for word in stored["bits"]]
        np.testing.assert_allclose(words[0].affine, image.affine, atol=0.01)
        expected = np.stack([word.array for word in words])
        assert set(found.annotated) == set(card.annotated_classes)
        for name in found.annotated:
            channel = class_info(name).channel
            assert np.array_equal(get_channel(found.bits, channel), get_channel(expected, channel)), name


@pytest.mark.parametrize("card_id", MINIATURE_SETS)
def test_a_set_of_the_demonstration_reads_back_as_its_truth(card_id: str, tmp_path: Path) -> None:
    written = write_miniature(card_id, tmp_path / "raw", cases=2, seed=1, truth_folder=tmp_path / "truth")
    assert written == FIRST_IDS[card_id]
    assert_reads_back(card_id, tmp_path / "raw", tmp_path / "truth", written)


def test_sets_keep_their_quirks(tmp_path: Path) -> None:
    axes = {}
    for card_id in MINIATURE_SETS:
        raw = tmp_path / card_id
        write_miniature(card_id, raw, cases=1, seed=1, truth_folder=tmp_path / "truth", spacing_mm=COARSE)
        card = load_card(card_id)
        case = reader_for(card).list_cases(raw, card).cases[0]
        axes[card_id] = reader_for(card).read_case(case, card).image.affine[:3, :3]
        if card_id == "chaos_ct":
            heights = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in sorted(case.image)]
            assert heights == sorted(heights, reverse=True)
            assert (raw / "Train_Sets" / "MR").is_dir()
        if card_id == "msd_pancreas":
            assert (raw / "Task07_Pancreas" / "imagesTr" / "._pancreas_001.nii.gz").is_file()
            assert reader_for(card).list_cases(raw, card).skipped_files == 3
    # KiTS: first axis downwards, second to the back, third to the left; nothing else is not zero
    np.testing.assert_allclose(axes["kits"], [[0, 0, -7], [0, -7, 0], [-8, 0, 0]])
    np.testing.assert_allclose(axes["btcv"], np.diag([-7, 7, 8]))


def test_lesions_follow_the_cards(tmp_path: Path) -> None:
    def lesion_counts(card_id: str, *names: str) -> list[list[bool]]:
        ids = write_miniature(
            card_id, tmp_path / card_id, cases=4, seed=5, truth_folder=tmp_path / "t", spacing_mm=COARSE
        )
        found = []
        for native_id in ids:
            with np.load(tmp_path / "t" / card_id / f"{native_id}.npz") as truth:
                found.append([bool(get_channel(truth["bits"], class_info(name).channel).any()) for name in names])
        return found

    assert lesion_counts("kits", "kidney_tumor", "kidney_cyst") == [[True, True], [True, False]] * 2
    assert lesion_counts("msd_pancreas", "pancreas_tumor") == [[True]] * 4
    assert lesion_counts("chaos_ct", *load_card("chaos_ct").tumour_free) == [[False] * 3] * 4


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    written = []
    for run in ("a", "b"):
        for card_id in ("btcv", "chaos_ct"):
            write_miniature(
                card_id,
                tmp_path / run / card_id,
                cases=1,
                seed=9,
                truth_folder=tmp_path / f"t{run}",
                spacing_mm=(9, 9, 9),
            )
        written.append(digests(tmp_path / run))
    assert written[0] == written[1]


def test_the_truth_never_lies_in_the_raw_folder(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with pytest.raises(ValueError, match="hidden"):
        write_miniature("btcv", raw, cases=1, seed=0, truth_folder=raw / "truth")
    write_miniature("btcv", raw, cases=1, seed=0, truth_folder=tmp_path / "truth", spacing_mm=(9, 9, 9))
    assert not list(raw.rglob("*.npz"))


def test_an_external_cohort_is_named_by_pseudonyms_that_the_reader_gives(tmp_path: Path) -> None:
    native_ids = write_external(tmp_path / "cohort", cases=2, seed=1, truth_folder=tmp_path / "truth")
    local = load_card("local")
    listing = reader_for(local).list_cases(tmp_path / "cohort", local)
    assert sorted(case.native_id for case in listing.cases) == sorted(native_ids)
    header = pydicom.dcmread(listing.cases[0].image[0])
    assert str(header.PatientName) in ("DOE^JANE", "MUSTERMANN^ERIKA")
    assert header.InstitutionName == "Example General Hospital"
    for case in listing.cases:
        raw = reader_for(local).read_case(case, local)
        with np.load(tmp_path / "truth" / "local" / f"{case.native_id}.npz") as truth:
            liver = orient_ras(Volume(get_channel(truth["bits"], class_info("liver").channel), truth["affine"]))
        assert 80 < np.median(orient_ras(raw.image).array[liver.array]) < 140


def test_what_has_no_miniature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no miniature"):
        write_miniature("local", tmp_path / "raw", cases=1, seed=0, truth_folder=tmp_path / "truth")
    with pytest.raises(ValueError, match="labelled ids"):
        write_miniature("chaos_ct", tmp_path / "raw", cases=21, seed=0, truth_folder=tmp_path / "truth")
    with pytest.raises(ValueError, match="has 1 labelled ids"):
        write_miniature("totalsegmentator_example", tmp_path / "raw", cases=2, seed=0, truth_folder=tmp_path / "truth")
