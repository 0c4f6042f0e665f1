"""NIfTI pairs and MSD tasks: what is paired, what is a problem, and where the voxels end up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import Card, load_card
from datasets_registry.layouts import CaseFiles, NoCasesFound, raw_digest, reader_for
from datasets_registry.layouts.files import expand_braces, natural_key
from imaging.errors import BadInput
from imaging.nifti import write_nifti
from imaging.volume import Volume

PANCREAS_CENTRE = (7.5, 9, 4.5)  # voxel index of the pancreas' centre in `body`


def put(volume: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(volume, path)


def relabelled(label: Volume, values: dict[int, int]) -> Volume:
    out = np.zeros_like(label.array)
    for native, value in values.items():
        out[label.array == native] = value
    return label.with_array(out)


def centre_mm(volume: Volume, value: int) -> list[float]:
    centre = np.argwhere(volume.array == value).mean(axis=0)
    return [round(float(x), 3) for x in volume.world_mm(centre[None])[0]]


@pytest.fixture
def btcv(tmp_path: Path, body: Any, store_as: Any) -> Path:
    """Case 0001 complete (LAS), 0002 without its label, 0061 of the unlabelled test part, one stray label, litter."""
    las = ((0, 1, 2), (True, False, False))
    label = relabelled(body.label, {1: 6, 2: 11})
    training = tmp_path / "RawData" / "Training"
    put(store_as(body.image, *las), training / "img" / "img0001.nii.gz")
    put(store_as(label, *las), training / "label" / "label0001.nii.gz")
    put(body.image, training / "img" / "img0002.nii.gz")
    put(label, training / "label" / "label0003.nii.gz")
    put(body.image, tmp_path / "RawData" / "Testing" / "img" / "img0061.nii.gz")
    (training / "img" / "._img0001.nii.gz").write_bytes(b"litter")
    (tmp_path / ".DS_Store").write_bytes(b"litter")
    return tmp_path


def test_btcv_pairs_by_digits_and_reports_what_is_missing(btcv: Path) -> None:
    card = load_card("btcv")
    listing = reader_for(card).list_cases(btcv, card)
    assert [case.native_id for case in listing.cases] == ["0001", "0061"]
    assert [(native_id, problem.code) for native_id, problem in listing.problems] == [
        ("0002", "label_missing"),
        ("0003", "image_missing"),
    ]
    assert listing.skipped_files == 2
    assert listing.cases[1].label == ()


def test_btcv_label_lies_where_the_image_shows_the_organ(btcv: Path, body: Any) -> None:
    card = load_card("btcv")
    case = reader_for(card).list_cases(btcv, card).cases[0]
    raw = reader_for(card).read_case(case, card)
    assert raw.label is not None
    assert raw.label.shape == raw.image.shape
    assert np.allclose(raw.label.affine, raw.image.affine)
    assert centre_mm(raw.label, 11) == body.image.world_mm(np.array([PANCREAS_CENTRE])).round(3).tolist()[0]
    assert 35 <= raw.image.array[raw.label.array == 11].mean() <= 45


def test_an_unlabelled_case_reads_without_a_label(btcv: Path) -> None:
    card = load_card("btcv")
    case = reader_for(card).list_cases(btcv, card).cases[1]
    assert reader_for(card).read_case(case, card).label is None


def test_kits_axis_order_keeps_world_positions(tmp_path: Path, body: Any, store_as: Any) -> None:
    card = load_card("kits")
    kits_axes = ((2, 1, 0), (True, True, True))  # (slice, row, column), head to foot, front to back, right to left
    folder = tmp_path / "dataset" / "case_00007"
    put(store_as(body.image, *kits_axes), folder / "imaging.nii.gz")
    put(store_as(body.label, *kits_axes), folder / "segmentation.nii.gz")
    case = reader_for(card).list_cases(tmp_path, card).cases[0]
    raw = reader_for(card).read_case(case, card)
    assert case.native_id == "00007"
    assert raw.image.shape == (10, 16, 20)
    assert np.all(np.diag(np.fliplr(raw.image.affine[:3, :3])) < 0)
    assert raw.label is not None
    assert centre_mm(raw.label, 2) == body.image.world_mm(np.array([PANCREAS_CENTRE])).round(3).tolist()[0]


def test_a_value_the_card_does_not_declare_is_refused(btcv: Path, body: Any) -> None:
    card = load_card("btcv")
    put(relabelled(body.label, {1: 6, 2: 14}), btcv / "RawData" / "Training" / "label" / "label0002.nii.gz")
    case = reader_for(card).list_cases(btcv, card).cases[1]
    with pytest.raises(BadInput, match=r"btcv/0002.*14"):
        reader_for(card).read_case(case, card)


def test_an_empty_label_is_accepted_with_a_note(btcv: Path, body: Any) -> None:
    card = load_card("btcv")
    put(relabelled(body.label, {}), btcv / "RawData" / "Training" / "label" / "label0002.nii.gz")
    case = reader_for(card).list_cases(btcv, card).cases[1]
    raw = reader_for(card).read_case(case, card)
    assert raw.notes == ("btcv/0002: the label is empty, all annotated classes count as absent",)


def test_messages_name_case_and_file_but_no_folder_of_this_machine(btcv: Path) -> None:
    card = load_card("btcv")
    path = btcv / "RawData" / "Training" / "img" / "img0001.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    case = reader_for(card).list_cases(btcv, card).cases[0]
    with pytest.raises(BadInput) as caught:
        reader_for(card).read_case(case, card)
    assert caught.value.where.startswith("btcv/0001")
    assert "img0001.nii.gz" in str(caught.value)
    assert str(btcv) not in str(caught.value)


def test_two_images_of_one_id_are_a_problem(btcv: Path, body: Any) -> None:
    card = load_card("btcv")
    put(body.image, btcv / "copy" / "img" / "img0001.nii.gz")
    listing = reader_for(card).list_cases(btcv, card)
    assert ("0001", "ambiguous_case") in [(native_id, problem.code) for native_id, problem in listing.problems]


def test_a_label_where_the_card_promises_none_is_a_problem(btcv: Path, body: Any) -> None:
    card = load_card("btcv")
    put(relabelled(body.label, {1: 6}), btcv / "RawData" / "Training" / "label" / "label0061.nii.gz")
    problems = dict(reader_for(card).list_cases(btcv, card).problems)
    assert problems["0061"].code == "label_unexpected"


def test_a_known_faulty_case_is_refused_with_reason_and_source(tmp_path: Path, body: Any) -> None:
    card = load_card("totalsegmentator_v2")
    put(body.image, tmp_path / "s0092" / "ct.nii.gz")
    ((native_id, problem),) = reader_for(card).list_cases(tmp_path, card).problems
    assert (native_id, problem.code) == ("s0092", "faulty_case")
    assert "label errors known in v2.0.1" in str(problem)
    assert "tseg" in str(problem)


def test_no_case_shows_the_expected_tree_and_what_was_found(tmp_path: Path) -> None:
    card = load_card("btcv")
    (tmp_path / "Training").mkdir()
    (tmp_path / "Training" / "notes.txt").write_text("x")
    with pytest.raises(NoCasesFound, match=r"Training/notes\.txt") as caught:
        reader_for(card).list_cases(tmp_path, card)
    assert "RawData/Training/img/imgNNNN.nii.gz" in str(caught.value)
    with pytest.raises(NoCasesFound, match="is no folder"):
        reader_for(card).list_cases(tmp_path / "absent", card)


def msd_task(root: Path, body: Any, names: dict[str, str], listed: list[str]) -> Path:
    task = root / "Task07_Pancreas"
    for native_id in ("001", "010"):
        put(body.image, task / "imagesTr" / f"pancreas_{native_id}.nii.gz")
        put(body.label, task / "labelsTr" / f"pancreas_{native_id}.nii.gz")
        (task / "imagesTr" / f"._pancreas_{native_id}.nii.gz").write_bytes(b"litter")
    training = [
        {"image": f"./imagesTr/pancreas_{n}.nii.gz", "label": f"./labelsTr/pancreas_{n}.nii.gz"} for n in listed
    ]
    (task / "dataset.json").write_text(json.dumps({"labels": names, "training": training}))
    return task


NAMES = {"0": "background", "1": "pancreas", "2": "cancer"}


def test_msd_lists_pairs_counts_litter_and_reports_a_listed_file_that_is_missing(tmp_path: Path, body: Any) -> None:
    card = load_card("msd_pancreas")
    msd_task(tmp_path, body, NAMES, ["001", "010", "011"])
    listing = reader_for(card).list_cases(tmp_path, card)
    assert [case.native_id for case in listing.cases] == ["001", "010"]
    assert [(native_id, problem.code) for native_id, problem in listing.problems] == [("011", "image_missing")]
    assert listing.skipped_files == 2
    raw = reader_for(card).read_case(listing.cases[0], card)
    assert raw.label is not None
    assert np.unique(raw.label.array).tolist() == [0, 1, 2]


def test_msd_with_swapped_names_is_refused_as_a_whole(tmp_path: Path, body: Any) -> None:
    card = load_card("msd_pancreas")
    msd_task(tmp_path, body, {"0": "background", "1": "cancer", "2": "pancreas"}, ["001"])
    with pytest.raises(ValueError, match=r"dataset.json declares labels \{1: 'cancer', 2: 'pancreas'\}"):
        reader_for(card).list_cases(tmp_path, card)


def test_msd_without_dataset_json_is_refused(tmp_path: Path, body: Any) -> None:
    card = load_card("msd_pancreas")
    (msd_task(tmp_path, body, NAMES, []) / "dataset.json").unlink()
    with pytest.raises(NoCasesFound, match=r"no dataset\.json in Task07_Pancreas"):
        reader_for(card).list_cases(tmp_path, card)


def test_masks_by_file_name_become_one_label_and_a_missing_structure_is_a_problem(tmp_path: Path, body: Any) -> None:
    card = load_card("totalsegmentator_v2")
    empty = body.label.with_array(np.zeros_like(body.label.array))
    for subject in ("s0001", "s0002"):
        put(body.image, tmp_path / subject / "ct.nii.gz")
        for value in card.labels.values():
            put(empty, tmp_path / subject / "segmentations" / f"{value.name}.nii.gz")
    put(body.label.with_array((body.label.array == 1).astype(np.uint8)), tmp_path / "s0001/segmentations/liver.nii.gz")
    put(body.label, tmp_path / "s0001/segmentations/heart.nii.gz")
    (tmp_path / "s0002" / "segmentations" / "aorta.nii.gz").unlink()
    listing = reader_for(card).list_cases(tmp_path, card)
    assert [(native_id, problem.code) for native_id, problem in listing.problems] == [("s0002", "label_missing")]
    raw = reader_for(card).read_case(listing.cases[0], card)
    assert raw.label is not None
    liver = next(value for value, meaning in card.labels.items() if meaning.name == "liver")
    assert np.array_equal(raw.label.array == liver, body.label.array == 1)
    assert np.unique(raw.label.array).tolist() == [0, liver]


def test_raw_digest_follows_bytes_and_order_not_names(tmp_path: Path) -> None:
    for name, content in {"a": b"1", "b": b"2", "c": b"1", "d": b"2", "joined": b"12"}.items():
        (tmp_path / name).write_bytes(content)

    def digest(image: str, label: str = "") -> str:
        files = tuple(tmp_path / name for name in image), tuple(tmp_path / name for name in label)
        return raw_digest(CaseFiles("tiny", "1", *files))

    assert digest("ab") == digest("cd")
    joined = raw_digest(CaseFiles("tiny", "1", (tmp_path / "joined",)))
    assert len({digest("ab"), digest("ba"), digest("a", "b"), joined}) == 4


def test_paths_of_a_case_stay_out_of_its_repr(tmp_path: Path) -> None:
    case = CaseFiles("local", "s0123456789", (tmp_path / "Doe^John.nii.gz",))
    assert "Doe" not in repr(case)


def test_globs_expand_braces_and_names_sort_naturally() -> None:
    assert expand_braces("x/{a,b}/{c,d}.nii") == ["x/a/c.nii", "x/a/d.nii", "x/b/c.nii", "x/b/d.nii"]
    assert sorted(["s10", "s9", "s1"], key=natural_key) == ["s1", "s9", "s10"]


def test_unknown_reader_lists_the_known_ones() -> None:
    card = load_card("btcv")
    wrong = Card(**{**card.model_dump(), "layout": {**card.layout.model_dump(), "reader": "pairs"}})
    with pytest.raises(KeyError, match="no reader 'pairs'; known: nifti_pairs"):
        reader_for(wrong)
