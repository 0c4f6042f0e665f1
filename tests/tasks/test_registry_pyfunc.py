"""A registered version through `mlflow.pyfunc.load_model`: whatever form a scan has, and no pickle anywhere."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mlflow
import nibabel
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from safetensors.numpy import load_file
from small_model import MODEL, checkpoint

from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.nifti import write_nifti
from imaging.volume import Volume
from models.checkpoint import load_model
from models.infer import predict_bits
from tasks.model_files import ABOUT, EMBEDDINGS, example_scan, read_about
from tasks.predict import PredictRequest, predict_scan
from tasks.registry import CHAMPION, ModelVersion, checkpoint_digest, fetch_checkpoint, register_checkpoint, set_alias
from tasks.settings import Settings
from tasks.tracking import mlflow_client, tracked_run
from tasks.weights import WEIGHTS, WeightsChanged

ROOT = Path(__file__).parents[2]
SHAPE = (40, 30, 24)
# not the model's grid: other spacing, the first axis points left, the scan lies away from the origin
AFFINE = np.array([[-10.0, 0, 0, 190], [0, 11.0, 0, -165], [0, 0, 12.5, -150], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("pyfunc"), device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def version(settings: Settings, weights: Path) -> ModelVersion:
    with tracked_run(settings, "train", kind="train", tags={}):
        made = register_checkpoint(weights, settings, tags={})
    set_alias(made, CHAMPION, settings)
    return made


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    write_nifti(Volume(render(make_anatomy(3), SHAPE, AFFINE)[0].array.astype(np.int16), AFFINE), path)
    return path


@pytest.fixture
def stored(version: ModelVersion, settings: Settings) -> Path:
    return fetch_checkpoint(version, settings).parents[1]


def test_a_fresh_process_labels_a_file_and_an_array_as_the_command_does(
    settings: Settings, version: ModelVersion, scan: Path, tmp_path: Path
) -> None:
    program = f"""
import json, mlflow, nibabel, numpy as np
mlflow.set_tracking_uri({settings.mlflow_uri!r})
model = mlflow.pyfunc.load_model("models:/universal@champion", model_config={{"device": "cpu"}})
one = model.predict({str(scan)!r})
image = nibabel.load({str(scan)!r})
two = model.predict({{"image": np.asarray(image.dataobj), "affine": image.affine}})
three = model.predict([{{"path": {str(scan)!r}}}], params={{"output": "bits", "classes": "Liver"}})[0]
np.savez({str(tmp_path / "found.npz")!r}, one=one["label"], two=two["label"], bits=three["bits"], affine=one["affine"])
print(json.dumps([one["names"], three["channels"]]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    names, channels = json.loads(done.stdout.splitlines()[-1])
    assert names == {str(class_info(name).index): name for name in MODEL.classes}
    told = predict_scan(PredictRequest(str(scan), (version.uri,), out=tmp_path / "out"), settings)
    expected = nibabel.load(told.segmentation)
    assert np.array_equal(found["one"], np.asarray(expected.dataobj))
    assert np.array_equal(found["two"], found["one"])
    assert np.allclose(found["affine"], AFFINE)
    assert found["one"].shape == SHAPE
    assert {class_info(name).index for name in MODEL.classes} <= set(np.unique(found["one"]))
    liver = get_channel(found["bits"], channels["liver"])
    assert list(channels) == ["liver"]
    assert (liver >= (found["one"] == class_info("liver").index)).all()  # a spleen over it hides it in the label map
    assert liver.any()


def test_a_volume_on_the_models_grid_gives_its_class_bits(version: ModelVersion, weights: Path) -> None:
    loaded = mlflow.pyfunc.load_model(version.uri)
    volume = example_scan()
    expected = predict_bits(*load_model(weights), volume).bits
    assert np.array_equal(loaded.predict(volume), expected)
    assert loaded.input_schema.input_names() == ["path", "image", "affine"]
    example = Model.load(version.uri).load_input_example(version.uri)
    assert np.array_equal(np.asarray(example["image"]), volume)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("nowhere.nii.gz", FileNotFoundError, "no such file or folder"),
        (np.zeros((4, 4, 4)), TypeError, "expected int16 HU"),
        (np.zeros((4, 4), np.int16), TypeError, r"shape \(4, 4\)"),
        ({"image": np.zeros((4, 4, 4))}, TypeError, r"the keys \['image'\], expected a path"),
        (17, TypeError, "input of int"),
        ({"image": np.zeros((4, 4, 4)), "affine": np.eye(4)}, ValueError, "the constant 0"),
    ],
)
def test_an_input_that_is_no_scan_is_refused(
    version: ModelVersion, asked: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mlflow.pyfunc.load_model(version.uri).predict(asked)


def test_classes_embeddings_and_preprocessing_lie_beside_the_weights(stored: Path, weights: Path) -> None:
    about = stored / "artifacts" / ABOUT
    told = read_about(about)
    assert told[WEIGHTS] == checkpoint_digest(weights)
    assert [(one["index"], one["name"], one["trained"]) for one in told["classes"]] == [
        (6, "liver", True),
        (1, "spleen", True),
    ]
    assert told["text"][0]["encoder"] == "hashing-ngram-512-v1"
    assert told["text"][0]["stand_in"] is True
    assert told["preprocessing"]["spacing_mm"] == list(MODEL.spacing_mm)
    assert told["preprocessing"]["orientation"] == "RAS"
    rows = load_file(about / EMBEDDINGS)["rows"]
    assert np.array_equal(rows, load_model(weights)[0].organ_embedding.numpy())


def test_nothing_stored_is_a_pickle(stored: Path) -> None:
    files = [path for path in stored.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".py", ".yaml", ".txt", ".json", ".safetensors"}
    assert not [path.name for path in files if path.suffix == ".pkl"]
    assert not [path.name for path in files if path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05", b"PK")]


class Trap:
    """What a pickle can hold: reading it makes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.place,))


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder, as whoever can write to the artifact store could leave it."""
    subprocess.run(["cp", "-r", str(stored), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def test_weights_replaced_by_a_pickle_are_refused_unread(copy: Path, tmp_path: Path) -> None:
    poisoned = copy / "artifacts" / "model.safetensors"
    torch.save({"net": Trap(tmp_path / "sprung")}, poisoned)
    with pytest.raises(WeightsChanged, match=r"model\.safetensors: SHA-256"):
        mlflow.pyfunc.load_model(str(copy))
    told = read_about(copy / "artifacts" / ABOUT) | {WEIGHTS: checkpoint_digest(poisoned)}
    (copy / "artifacts" / ABOUT / "model.json").write_text(json.dumps(told))
    with pytest.raises(WeightsChanged, match="but MLflow says"):  # its database knows the digest too
        mlflow.pyfunc.load_model(str(copy))
    mlmodel = (copy / "MLmodel").read_text()
    (copy / "MLmodel").write_text("".join(line for line in mlmodel.splitlines(True) if "model_id" not in line))
    with pytest.raises(ValueError, match="a pickle"):
        mlflow.pyfunc.load_model(str(copy))
    assert not (tmp_path / "sprung").exists()


def test_a_model_that_asks_for_a_pickle_is_refused_unread(copy: Path, tmp_path: Path) -> None:
    (copy / "python_model.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    mlmodel = (copy / "MLmodel").read_text().replace("mlflow.pyfunc.loaders.code_model", "mlflow.pyfunc.model")
    mlmodel = mlmodel.replace("    model_code_path:", "    python_model: python_model.pkl\n    unused:")
    (copy / "MLmodel").write_text(mlmodel)
    with pytest.raises(MlflowException, match="pickle is disallowed"):
        mlflow.pyfunc.load_model(str(copy))
    assert not (tmp_path / "sprung").exists()


def test_one_changed_bit_is_refused_by_load_model_too(stored: Path, version: ModelVersion) -> None:
    file = stored / "artifacts" / "model.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(WeightsChanged):
            mlflow.pyfunc.load_model(version.uri)
    finally:
        file.write_bytes(whole)


def test_the_digest_stands_on_the_logged_model_and_on_the_version(
    settings: Settings, version: ModelVersion, weights: Path
) -> None:
    client = mlflow_client(settings)
    (logged,) = client.search_logged_models([client.get_run(version.run_id).info.experiment_id])
    assert logged.tags[WEIGHTS] == checkpoint_digest(weights)
    assert client.get_model_version(version.name, str(version.version)).tags[WEIGHTS] == checkpoint_digest(weights)


def test_registering_again_in_the_same_run_finds_the_version(
    settings: Settings, version: ModelVersion, weights: Path
) -> None:
    with tracked_run(settings, "train", kind="train", tags={}, run_id=version.run_id):
        assert register_checkpoint(weights, settings, tags={}).version == version.version
