"""One scan from a file, a DICOM folder and the lake to masks in its own geometry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_model import MODEL, checkpoint
from typer.testing import CliRunner

from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.taxonomy import class_info
from flows.cli import app
from imaging.bits import Bits, get_channel
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.layers import paint
from imaging.nifti import write_nifti
from imaging.sides import body_midline_x
from imaging.volume import Volume
from models.infer import Prediction, predict_bits
from models.postprocess import clean
from tasks.ingest import ingest_batch, list_source
from tasks.predict import PredictOutcome, PredictRequest, predict_scan
from tasks.prediction import predict_case
from tasks.settings import Settings
from tasks.workspace import open_workspace

SHAPE = (34, 28, 20)
AFFINE = np.array([[12.0, 0, 0, -198], [0, 12.0, 0, -162], [0, 0, 15.0, -150], [0, 0, 0, 1]])
PROMPT = "left renal vein"


def phantom(shape: tuple[int, int, int], affine: np.ndarray) -> Volume:
    """Return a body in int16 HU; without the steps, which tell nothing here."""
    return Volume(render(make_anatomy(3), shape, affine)[0].array.astype(np.int16), affine)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model") / "own.safetensors")


@pytest.fixture(scope="module")
def image() -> Volume:
    """A phantom on the model's grid."""
    return phantom(SHAPE, AFFINE)


@pytest.fixture(scope="module")
def expected(image: Volume, weights: Path) -> np.ndarray:
    """The labels of that scan, without any file or resampling in between."""
    from models.checkpoint import load_model

    found = predict_bits(*load_model(weights), image.array)
    values = {class_info(name).channel: class_info(name).index for name in ("spleen", "liver")}
    labels = paint(_cleaned(found, image, MODEL.classes), values)
    assert {6, 1} <= set(np.unique(labels))
    return labels


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "work", spacing_mm=MODEL.spacing_mm, device="cpu")


def run(scan: Path | str, weights: Path, settings: Settings, **more: object) -> PredictOutcome:
    return predict_scan(PredictRequest(str(scan), (str(weights),), **more), settings)  # type: ignore[arg-type]


def labels_of(outcome: PredictOutcome) -> tuple[np.ndarray, np.ndarray]:
    found = nibabel.load(outcome.segmentation)
    return np.asarray(found.dataobj), found.affine


def test_a_nifti_gets_masks_and_figures(
    image: Volume, weights: Path, settings: Settings, expected: np.ndarray, tmp_path: Path
) -> None:
    write_nifti(image, tmp_path / "ct.nii.gz")
    outcome = run(tmp_path / "ct.nii.gz", weights, settings)
    labels, affine = labels_of(outcome)
    assert np.array_equal(labels, expected)
    assert np.allclose(affine, AFFINE)
    assert outcome.overlay.is_file()
    assert "ct" not in outcome.scan  # file names may name patients
    about = json.loads(outcome.segmentation.with_name("segmentation.json").read_text())
    assert about["models"] == ["own.safetensors"]
    assert about["values"] == {"1": "spleen", "6": "liver"}
    liver = next(item for item in outcome.found if item.name == "liver")
    assert liver.ml == pytest.approx((expected == 6).sum() * 12 * 12 * 15 / 1000)
    assert 0.5 < liver.mean_probability < 1


def test_a_scan_that_points_elsewhere_gets_the_same_masks_in_its_own_axes(
    image: Volume, weights: Path, settings: Settings, expected: np.ndarray, tmp_path: Path
) -> None:
    turned = nibabel.Nifti1Image(image.array, AFFINE).as_reoriented(
        nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], [[2, 1], [0, -1], [1, -1]])
    )
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    labels, affine = labels_of(run(tmp_path / "turned.nii.gz", weights, settings))
    assert labels.shape == turned.shape != image.shape
    back = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, affine))
    assert np.allclose(back.affine, AFFINE)
    assert np.array_equal(np.asarray(back.dataobj), expected)


def test_another_spacing_is_resampled_and_the_masks_come_back(
    weights: Path, settings: Settings, tmp_path: Path
) -> None:
    fine = AFFINE @ np.diag([0.5, 0.75, 0.4, 1.0])
    shape = (50, 37, 45)
    write_nifti(phantom(shape, fine), tmp_path / "fine.nii.gz")
    labels, affine = labels_of(run(tmp_path / "fine.nii.gz", weights, settings))
    assert labels.shape == shape
    assert np.allclose(affine, fine)
    assert {1, 6} >= set(np.unique(labels)) - {0} != set()


def test_a_dicom_folder_and_a_case_of_the_lake_give_the_same_masks(
    image: Volume, weights: Path, settings: Settings, expected: np.ndarray, tmp_path: Path
) -> None:
    write_series(image, tmp_path / "series", patient_id="p")
    by_folder = run(tmp_path / "series", weights, settings)
    listing = list_source("local", tmp_path / "series", settings)
    ingest_batch(listing.requests, settings)
    by_case = run(listing.requests[0].files.where, weights, settings, out=tmp_path / "out")
    assert by_case.segmentation == tmp_path / "out" / "segmentation.nii.gz"
    for outcome in (by_folder, by_case):
        labels, affine = labels_of(outcome)
        back = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, affine))
        assert np.array_equal(np.asarray(back.dataobj), expected)
    assert by_case.found[0].ml == by_folder.found[0].ml


def test_a_free_text_is_marked_experimental_wherever_it_shows(
    image: Volume, weights: Path, settings: Settings, expected: np.ndarray, tmp_path: Path
) -> None:
    write_nifti(image, tmp_path / "ct.nii.gz")
    outcome = run(tmp_path / "ct.nii.gz", weights, settings, prompts=(PROMPT,), classes=("Spleen",))
    assert [(item.name, item.experimental) for item in outcome.found] == [("spleen", False), (PROMPT, True)]
    path = outcome.found[1].file
    assert path.name == "experimental_left-renal-vein.nii.gz"
    mask = np.asarray(nibabel.load(path).dataobj)
    assert mask.shape == SHAPE
    assert 0 < mask.sum() < mask.size
    assert mask.sum() * 12 * 12 * 15 / 1000 == pytest.approx(outcome.found[1].ml)
    about = json.loads(path.with_name("experimental_left-renal-vein.json").read_text())
    assert about["experimental"] is True
    assert about["values"] == {"1": PROMPT}
    assert about["text_encoder"] == "hashing-ngram-512-v1"
    labels, _ = labels_of(outcome)
    assert np.array_equal(labels == 1, _alone(image, weights, "spleen"))


def _alone(image: Volume, weights: Path, name: str) -> np.ndarray:
    from models.checkpoint import load_model

    found = predict_bits(*load_model(weights), image.array, classes=[name])
    return get_channel(_cleaned(found, image, [name]), class_info(name).channel)


def _cleaned(found: Prediction, image: Volume, names: Sequence[str]) -> Bits:
    return clean(found.bits, names, affine=image.affine, midline_x=body_midline_x(image)).bits


def test_the_command_tells_the_estimate_and_what_is_experimental(image: Volume, weights: Path, tmp_path: Path) -> None:
    write_nifti(image, tmp_path / "ct.nii.gz")
    request = ["predict", str(tmp_path / "ct.nii.gz"), "--model", str(weights), "-w", str(tmp_path / "work")]
    result = CliRunner().invoke(app, [*request, "--classes", "liver,spleen", "--prompt", PROMPT, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "windows" in result.stderr
    assert " a pass, 32-true on cpu: about " in result.stderr
    assert f"{PROMPT} (EXPERIMENTAL)" in result.stdout
    as_json = CliRunner().invoke(app, [*request, "--json"])
    assert {item["name"] for item in json.loads(as_json.stdout)["found"]} == {"liver", "spleen"}


def test_prompts_need_the_encoder_of_the_model(weights: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder 'random-512-v1', but the model's classes were embedded by 'hash"):
        run("ct.nii.gz", weights, settings, prompts=(PROMPT,), text_encoder="random")
    blind = checkpoint(tmp_path / "blind.safetensors", replace(MODEL, text_encoder="one_hot"))
    with pytest.raises(ValueError, match="'one_hot', which knows no words"):
        run("ct.nii.gz", blind, settings, prompts=(PROMPT,))
    with pytest.raises(ValueError, match="a class of the model"):
        run("ct.nii.gz", weights, settings, prompts=("liver",))


def test_what_cannot_be_predicted_is_refused_with_a_remedy(
    image: Volume, weights: Path, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder, and no such case in the lake"):
        run(tmp_path / "absent.nii.gz", weights, settings)
    with pytest.raises(KeyError, match="no class 'livr'; nearest: liver"):
        run(tmp_path / "absent.nii.gz", weights, settings, classes=("livr",))
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        run(tmp_path / "absent.nii.gz", tmp_path / "none.safetensors", settings)
    bad = image.array.astype(np.float32)
    bad[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(bad, AFFINE), tmp_path / "nan.nii.gz")
    with pytest.raises(BadInput, match=r"1 .*\(1, 2, 3\)"):
        run(tmp_path / "nan.nii.gz", weights, settings)
    nibabel.save(nibabel.Nifti1Image(np.stack([image.array] * 2, axis=3), AFFINE), tmp_path / "time.nii.gz")
    with pytest.raises(BadInput, match="34, 28, 20, 2"):
        run(tmp_path / "time.nii.gz", weights, settings)
    several = tmp_path / "several"
    several.mkdir()
    for number in range(2):
        write_nifti(image.with_array(image.array + np.int16(number)), several / f"{number}.nii.gz")
    with pytest.raises(ValueError, match="2 scans, expected one; give the folder of one series"):
        run(several, weights, settings)


def test_an_ensemble_is_of_models_trained_alike(
    image: Volume, weights: Path, settings: Settings, expected: np.ndarray, tmp_path: Path
) -> None:
    write_nifti(image, tmp_path / "ct.nii.gz")
    twice = PredictRequest(str(tmp_path / "ct.nii.gz"), (str(weights), str(weights)))
    outcome = predict_scan(twice, settings)
    assert outcome.models == ("own.safetensors", "own.safetensors")
    assert np.mean(labels_of(outcome)[0] != expected) < 1e-3  # ties
    other = checkpoint(tmp_path / "other.safetensors", replace(MODEL, hu_window=(-100.0, 200.0)))
    with pytest.raises(ValueError, match=r"no ensemble: hu_window is \(-100.0, 200.0\) and \(-175.0, 250.0\)"):
        predict_scan(replace(twice, models=(str(weights), str(other))), settings)


def test_a_case_on_another_grid_than_the_models_is_refused_with_both_spacings(
    weights: Path, settings: Settings
) -> None:
    case = {"case_id": "clinic/1", "spacing_mm": [1.5, 1.5, 3.0]}
    with pytest.raises(
        ValueError, match=r"clinic/1: spacing \[1.5, 1.5, 3.0\] mm, .* at \[12.0, 12.0, 15.0\] mm; ingest"
    ):
        predict_case(open_workspace(settings), case, weights)
