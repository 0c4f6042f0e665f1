"""Label sets of the same scans compared: by hand, on miniatures with perturbed masks, and on two real annotators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from datasets_registry.taxonomy import class_info
from flows.cli import app
from flows.cli_agreement import _folders
from imaging.bits import clear_channel, get_channel, set_channel
from imaging.metrics import dice
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.agreement import Study, agreement_table, cases_of, score_study
from tasks.agreement_sets import Annotation, LabelFolder
from tasks.case_rows import label_rows
from tasks.ingest import ingest_batch, list_source
from tasks.miniatures import write_miniature_set
from tasks.settings import Settings
from tasks.workspace import existing_workspace, open_workspace, row_dicts

SHAPE = (12, 10, 8)
AFFINE = np.array(
    [[-1.0, 0, 0, 30], [0, 2.0, 0, -20], [0, 0, 5.0, 7], [0, 0, 0, 1]]
)  # 0.01 ml a voxel, x from the left
VALUES = {"kidney": (1, 2), "kidney_tumor": (2,)}


def rod(first: int, last: int, tumour: int = 0) -> NDArray[np.uint8]:
    """Return a label map: a rod of kidney along x, whose first `tumour` voxels are tumour."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[first:last, 3:5, 3:5] = 1
    array[first : first + tumour, 3:5, 3:5] = 2
    return array


def folder_of(place: Path, cases: dict[str, NDArray[np.uint8]], affine: NDArray[np.float64] = AFFINE) -> Path:
    place.mkdir(parents=True)
    for case, array in cases.items():
        write_nifti(Volume(array, affine), place / f"{case}.nii.gz")
    return place


def settings_in(folder: Path) -> Settings:
    return Settings(workspace=folder / "workspace", nsd_tolerance_mm=1.0, spacing_mm=(12, 12, 12), threads=1)


@pytest.fixture
def three(tmp_path: Path) -> Study:
    """Two doctors and a model; the model has not seen case c, and nobody finds a tumour in case b."""
    cases = {
        "dr1": {"a": rod(0, 8, 2), "b": rod(0, 4), "c": rod(0, 4)},
        "dr2": {"a": rod(0, 8, 4), "b": rod(0, 8), "c": rod(0, 4)},
        "ai": {"a": rod(4, 12), "b": rod(0, 4)},
    }
    return Study(tuple(LabelFolder(name, folder_of(tmp_path / name, maps), VALUES) for name, maps in cases.items()))


def scored(study: Study, settings: Settings) -> pd.DataFrame:
    return score_study(cases_of(study, settings), study, settings)


def test_every_pair_is_scored_on_the_cases_that_both_have(three: Study, tmp_path: Path) -> None:
    scores = scored(three, settings_in(tmp_path)).set_index(["pair", "class_name", "case_id"])
    kidney = {key[0::2]: value for key, value in scores["dsc"].items() if key[1] == "kidney"}
    assert kidney == {
        ("dr1 - dr2", "a"): 1.0,
        ("dr1 - dr2", "b"): pytest.approx(2 / 3),
        ("dr1 - dr2", "c"): 1.0,
        ("dr1 - ai", "a"): 0.5,
        ("dr1 - ai", "b"): 1.0,
        ("dr2 - ai", "a"): 0.5,
        ("dr2 - ai", "b"): pytest.approx(2 / 3),
    }
    tumour = scores.loc[("dr1 - dr2", "kidney_tumor", "a")]
    assert tumour["dsc"] == pytest.approx(2 / 3)
    assert (tumour["first_ml"], tumour["second_ml"]) == (pytest.approx(0.08), pytest.approx(0.16))
    assert tumour["volume_error_ml"] == pytest.approx(0.08)


def test_a_class_in_neither_set_is_in_no_mean_but_is_told(three: Study, tmp_path: Path) -> None:
    table = agreement_table(scored(three, settings_in(tmp_path))).set_index(["pair", "class_name"])
    found = table.loc[("dr1 - dr2", "kidney_tumor")]
    assert (found["cases"], found["scored"], found["both_empty"]) == (3, 1, 2)
    assert found["dsc"] == pytest.approx(2 / 3)
    assert np.isnan(found["dsc_low"])  # one patient has no spread
    missed = table.loc[("dr1 - ai", "kidney_tumor")]
    assert (missed["dsc"], missed["nsd"], missed["scored"]) == (0.0, 0.0, 1)
    kidney = table.loc[("dr1 - dr2", "kidney")]
    assert kidney["dsc"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert (kidney["dsc_low"], kidney["dsc_high"]) == (pytest.approx(2 / 3), 1.0)  # of 3 patients: all draws


def test_only_the_classes_asked_for(three: Study, tmp_path: Path) -> None:
    asked = Study(three.sets, classes=("kidney",))
    assert set(scored(asked, settings_in(tmp_path))["class_name"]) == {"kidney"}


def test_masks_in_folders_of_cases_are_the_classes_that_were_looked_for(tmp_path: Path) -> None:
    for name, classes in (("dr1", {"liver": rod(0, 4), "spleen": rod(8, 10)}), ("dr2", {"spleen": rod(8, 10)})):
        folder_of(tmp_path / name / "case_1" / "segmentations", classes)
    study = Study((LabelFolder("dr1", tmp_path / "dr1"), LabelFolder("dr2", tmp_path / "dr2")))
    scores = scored(study, settings_in(tmp_path))
    assert scores[["class_name", "dsc", "nsd"]].to_numpy().tolist() == [["spleen", 1.0, 1.0]]


def test_files_in_another_orientation_are_the_same_scan(tmp_path: Path) -> None:
    turned = AFFINE.copy()
    turned[0] = [1.0, 0, 0, 30 - (SHAPE[0] - 1)]
    one = folder_of(tmp_path / "one", {"a": rod(0, 4)})
    other = folder_of(tmp_path / "other", {"a": rod(0, 4)[::-1].copy()}, turned)
    study = Study((LabelFolder("one", one, VALUES), LabelFolder("other", other, VALUES)))
    assert scored(study, settings_in(tmp_path)).set_index("class_name")["dsc"]["kidney"] == 1.0


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    one = LabelFolder("one", folder_of(tmp_path / "one", {"a": rod(0, 4)}), VALUES)
    moved = AFFINE + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])
    sets: Sequence[tuple[LabelFolder, str]] = [
        (LabelFolder("two", folder_of(tmp_path / "moved", {"a": rod(0, 4)}, moved), VALUES), "lie 3.00 mm apart"),
        (
            LabelFolder("two", folder_of(tmp_path / "cut", {"a": rod(0, 4)[:, :9]}), VALUES),
            r"\(12, 9, 8\): not one scan",
        ),
        (
            LabelFolder("two", folder_of(tmp_path / "kits", {"a": rod(0, 4)}), {"tumour": (3,)}),
            r"values \[1\] belong to",
        ),
        (LabelFolder("two", folder_of(tmp_path / "other", {"b": rod(0, 4)}), VALUES), "no case is in two of the label"),
        (
            LabelFolder("two", folder_of(tmp_path / "named", {"a": rod(0, 4)}), {"spleen": (1,)}),
            "no class was looked for",
        ),
    ]
    for other, message in sets:
        with pytest.raises(ValueError, match=message):
            scored(Study((one, other)), settings)
    half = folder_of(tmp_path / "half", {})
    write_nifti(Volume(rod(0, 4).astype(np.float32) * 0.5, AFFINE), half / "a.nii.gz")
    with pytest.raises(ValueError, match=r"values that are no integers, such as 0\.5"):
        scored(Study((one, LabelFolder("two", half, VALUES))), settings)
    with pytest.raises(FileNotFoundError, match="label set two: no folder"):
        scored(Study((one, LabelFolder("two", tmp_path / "none"))), settings)
    with pytest.raises(ValueError, match="two or more of different names"):
        Study((one, LabelFolder("one", tmp_path)))
    with pytest.raises(ValueError, match="do not lie on one grid"):
        Study((one, Annotation("shipped")))


def test_options_name_files_and_values(tmp_path: Path) -> None:
    sets = _folders([f"one={tmp_path}", f"two={tmp_path}:label.nii.gz"], ["kidney=1+2,cyst=3", "two:kidney=1"])
    assert [(one.name, one.folder, one.file) for one in sets] == [
        ("one", tmp_path, None),
        ("two", tmp_path, "label.nii.gz"),
    ]
    assert [dict(one.values) for one in sets] == [{"kidney": (1, 2), "cyst": (3,)}, {"kidney": (1,)}]
    for folders, values, message in (
        (["one"], [], "expected NAME=FOLDER"),
        (["one=x"], ["kidney=0"], "is not CLASS=VALUE"),
        (["one=x"], ["three:kidney=1"], "three, which no --folder has"),
    ):
        with pytest.raises(ValueError, match=message):
            _folders(folders, values)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Miniatures with a second annotation beside the shipped one: the liver one voxel further, the rest as it was."""
    settings = settings_in(tmp_path_factory.mktemp("lake"))
    folder = write_miniature_set("msd_liver", settings.workspace / "raw", cases=3, seed=2)
    ingest_batch(list_source("msd_liver", folder, settings).requests, settings)
    workspace = open_workspace(settings)
    for case in row_dicts(workspace.tables.cases()):
        rows = row_dicts(workspace.tables.labels(case_ids=[case["case_id"]]))
        bits = workspace.lake.open_bits(rows[0], rows[0]["annotation"]).read()
        liver = class_info("liver").channel
        moved = np.roll(get_channel(bits, liver), 1, axis=0)
        clear_channel(bits, liver)
        set_channel(bits, liver, moved)
        manifest = workspace.lake.write_annotation(case["path"], "second", bits)
        image = workspace.lake.open_image(case)
        made = label_rows(
            bits,
            Volume(image.read(), np.array(case["affine"]).reshape(4, 4)),
            [row["class_name"] for row in rows],
            case={"case_id": case["case_id"], "ingest_key": case["ingest_key"]},
            annotation="second",
            sampled_voxels=settings.sampled_voxels,
            provenance=lambda _: {"state": "pseudo", "label_origin": "human", "manifest": manifest.to_json()},  # noqa: B023
        )
        workspace.tables.commit_labels(made)
    return settings


def test_annotations_of_the_lake_by_command(lake: Settings) -> None:
    command = ["agreement", "--annotation", "shipped", "--annotation", "second", "-w", str(lake.workspace), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    table = pd.DataFrame(answer["classes"]).set_index("class_name")
    workspace = existing_workspace(lake)
    expected = []
    for case in row_dicts(workspace.tables.cases()):
        masks = []
        for annotation in ("shipped", "second"):
            row = row_dicts(workspace.tables.labels(case_ids=[case["case_id"]], annotation=annotation))[0]
            bits = workspace.lake.open_bits(row, annotation).read()
            masks.append(get_channel(bits, class_info("liver").channel))
        expected.append(dice(*masks))
    assert 0.3 < np.min(expected) < np.max(expected) < 0.95
    assert table["dsc"]["liver"] == pytest.approx(np.mean(expected))
    assert table["dsc_low"]["liver"] < table["dsc"]["liver"] < table["dsc_high"]["liver"]
    assert table["dsc"]["liver_tumor"] == 1.0
    # everything is in the folder, and in MLflow
    folder = Path(answer["folder"])
    assert {path.name for path in folder.iterdir()} == {
        "agreement.json",
        "agreement.png",
        "classes.parquet",
        "scores.parquet",
    }
    assert len(pd.read_parquet(folder / "scores.parquet")) == 3 * len(table)
    run = mlflow.get_run(answer["mlflow_run_id"])
    assert run.data.tags["kind"] == "agreement"
    assert run.data.metrics["dsc/liver/shipped - second"] == pytest.approx(np.mean(expected))
    kept = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert kept >= {"scores.parquet", "classes.parquet", "classes.html", "agreement.json", "agreement.png"}
    row = row_dicts(workspace.tables.runs())[-1]
    assert (row["kind"], row["mlflow_run_id"], row["outcome"]) == ("agreement", run.info.run_id, "done")


@pytest.mark.real_data
def test_kits19_and_kits23_of_two_patients(real_data: Path, tmp_path: Path) -> None:
    for case in ("00030", "00165"):
        for year in ("19", "23"):
            place = tmp_path / f"kits{year}" / case
            place.mkdir(parents=True)
            (place / "label.nii.gz").symlink_to(real_data / f"kits_case_{case}" / f"kits{year}_label.nii.gz")
    values = {"foreground": (1, 2, 3), "kidney_tumor": (2,)}
    sets = (LabelFolder("kits19", tmp_path / "kits19", values), LabelFolder("kits23", tmp_path / "kits23", values))
    table = agreement_table(scored(Study(sets), settings_in(tmp_path))).set_index("class_name")
    assert table["dsc"]["foreground"] == pytest.approx((0.9774494 + 0.9803196) / 2, abs=1e-6)
    assert table["nsd"]["foreground"] == pytest.approx((0.8534357 + 0.9373667) / 2, abs=1e-6)
    assert table["dsc"]["kidney_tumor"] == pytest.approx((0.9764109 + 0.7496516) / 2, abs=1e-6)
    assert (table["dsc_low"]["kidney_tumor"], table["dsc_high"]["kidney_tumor"]) == pytest.approx(
        (0.7496516, 0.9764109), abs=1e-6
    )
