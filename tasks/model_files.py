"""What is logged as a model in MLflow beside its weights: class table, text embeddings, preprocessing, signature."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from datasets_registry.taxonomy import class_info
from models.checkpoint import ModelMetadata, members, read_metadata
from models.licence import KEYS as LICENCE_KEYS
from models.text import is_stand_in
from tasks.prediction import trained_classes
from tasks.weights import WEIGHTS, checkpoint_digest

ABOUT = "about"
"""Name of the artifact, a folder with `model.json` and `text_embeddings.safetensors`."""
DESCRIPTION, EMBEDDINGS = "model.json", "text_embeddings.safetensors"

_PYFUNC = Path(__file__).with_name("mlflow_model.py")
_GRID_3D = Array(Array(Array(DataType.long)))  # JSON knows no shorter ones
_AFFINE = Array(Array(DataType.double))


def log_model_files(checkpoint: Path, registered_name: str) -> str:
    """Log `checkpoint` as a model of the active run, register it under a name and return the number of the version.

    It is code plus weights, without a pickle. The digest of the weights stands in `about/model.json`, on the logged
    model and on the version.
    """
    with tempfile.TemporaryDirectory() as aside:
        about = write_about(Path(aside) / ABOUT, checkpoint)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_PYFUNC),
            artifacts={**{file.stem: str(file) for file in members(checkpoint)}, ABOUT: str(about)},
            pip_requirements=[f"ct-label-factory=={importlib.metadata.version('ct-label-factory')}"],
            registered_model_name=registered_name,
            signature=signature(),
            input_example={"image": example_scan(), "affine": np.diag([8.0, 8.0, 10.0, 1.0])},
            tags={WEIGHTS: read_about(about)[WEIGHTS]},
        )
    return str(logged.registered_model_version)


def signature() -> ModelSignature:
    """Return the inputs, outputs and parameters of a model, as `tasks.pyfunc_model` takes and gives them.

    A path, a record and a plain volume are all taken, which no schema of MLflow can say: the columns name the parts of
    a record, and the model checks its input itself. MLflow does not check before it where the signature is marked as
    that of a function with type hints; else it would turn a volume into nested lists.
    """
    inputs = [
        ColSpec(DataType.string, "path", required=False),
        ColSpec(_GRID_3D, "image", required=False),
        ColSpec(_AFFINE, "affine", required=False),
    ]
    outputs = [ColSpec(_GRID_3D, "label"), ColSpec(Map(DataType.string), "names"), ColSpec(_AFFINE, "affine")]
    params = [ParamSpec("output", DataType.string, "label"), ParamSpec("classes", DataType.string, "")]
    made = ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=ParamSchema(params))
    made._is_signature_from_type_hint = True
    return made


def example_scan() -> NDArray[np.int16]:
    """Return a ball of soft tissue with a denser core in air, (16, 16, 8) HU: a scan small enough for a JSON file."""
    i, j, k = np.ogrid[:16, :16, :8]
    radius = ((i - 7.5) / 6) ** 2 + ((j - 7.5) / 6) ** 2 + ((k - 3.5) / 3) ** 2
    return np.select([radius < 0.3, radius < 1], [110, 40], -1000).astype(np.int16)


def write_about(folder: Path, checkpoint: Path) -> Path:
    """Write what people and other programs need to know of `checkpoint` into `folder`; return it."""
    metadata = read_metadata(checkpoint)
    folder.mkdir(parents=True)
    described = {WEIGHTS: checkpoint_digest(checkpoint), **describe(metadata, [f.name for f in members(checkpoint)])}
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    text = {"encoder": metadata.encoder, "prompt": metadata.prompt, "classes": ",".join(metadata.model.classes)}
    save_file({"rows": embedding_rows(members(checkpoint)[0], metadata)}, folder / EMBEDDINGS, text)
    return folder


def read_about(folder: Path) -> dict[str, Any]:
    """Return what `write_about` wrote."""
    found: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return found


def describe(metadata: ModelMetadata, files: Sequence[str]) -> dict[str, Any]:
    """Return a model in plain values: files, class table, text embeddings, preprocessing, licence."""
    trained = set(trained_classes(metadata))
    table = [
        {
            "index": info.index,
            "channel": info.channel,
            "name": info.name,
            "title": info.title,
            "kind": info.kind,
            "inside": list(info.parents),
            "trained": info.name in trained,
        }
        for info in map(class_info, metadata.model.classes)
    ]
    text = [(metadata.encoder, metadata.prompt, metadata.embeddings_digest, metadata.own_classes)]
    text += [(one.encoder, one.prompt, one.embeddings_digest, one.classes) for one in metadata.extensions]
    return {
        "files": list(files),
        "backbone": metadata.model.backbone,
        "steps": metadata.step,
        "classes": table,
        "text": [
            {
                "encoder": encoder,
                "stand_in": is_stand_in(encoder),
                "prompt": prompt,
                "embeddings_sha256": digest,
                "classes": list(names),
            }
            for encoder, prompt, digest, names in text
        ],
        "preprocessing": {
            "orientation": "RAS",
            "spacing_mm": list(metadata.model.spacing_mm),
            "hu_window": list(metadata.model.hu_window),
            "patch_voxels": list(metadata.model.patch),
            "interpolation": "image linear, masks nearest",
        },
        "licence": {name: metadata.extra[name] for name in LICENCE_KEYS if name in metadata.extra},
    }


def embedding_rows(file: Path, metadata: ModelMetadata) -> NDArray[np.float32]:
    """Return the text rows of all classes of a model in the order of its outputs, (C, 512) float32."""
    keys = ["organ_embedding", *(f"extensions.{n}.organ_embedding" for n in range(len(metadata.extensions)))]
    with safe_open(file, framework="numpy") as opened:
        rows = [np.asarray(opened.get_tensor(f"model.{key}"), dtype=np.float32) for key in keys]
    return np.concatenate(rows)
