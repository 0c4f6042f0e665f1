"""A registered version as `mlflow.pyfunc.load_model` gives it: a scan in, masks on the scan's own grid out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from numpy.typing import NDArray

from datasets_registry.taxonomy import class_info
from imaging.layers import paint
from imaging.resample_masks import resample_masks
from models.checkpoint import ModelMetadata, load_model
from models.infer import Predictor
from models.infer_scan import ArrayScan
from tasks.export_subject import PAINT_ORDER
from tasks.model_files import ABOUT, read_about
from tasks.notices import tell_licence
from tasks.prediction import clean_prediction, trained_classes
from tasks.scan_input import ScanOnGrid, scan_of_array, scan_of_path
from tasks.settings import Settings, with_values
from tasks.weights import WEIGHTS, WeightsChanged, files_digest

INPUTS = "a path, {'path': ...}, {'image': (X, Y, Z) HU, 'affine': 4 x 4}, or an int16 volume at the model's spacing"


class UniversalPyfunc(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Predict the classes that the model was trained on.

    A NIfTI or NRRD file, a folder with one DICOM series, or an array with its affine is brought onto the model's grid,
    predicted and cleaned as by `ctfactory predict`, and its masks come back on its own grid. An int16 volume (X, Y, Z)
    in HU that lies on the model's grid already, in RAS, is predicted as it is, and gives raw class bits (W, X, Y, Z).
    """

    def load_context(self, context: Any) -> None:
        """Read the safetensors that were logged beside the script: one, or several that predict together.

        `model_config={"device": "cuda"}` of load_model chooses the device (`cpu`, `cuda` or `auto`); all else is as the
        settings of the process say (CTFACTORY_DEVICE, CTFACTORY_CLEANING). Raises WeightsChanged where the weights are
        not those that were registered.
        """
        files = [Path(path) for name, path in sorted(context.artifacts.items()) if name != ABOUT]
        _require_registered(files, Path(context.artifacts[ABOUT]))
        chosen = (context.model_config or {}).get("device")
        self.settings = with_values(Settings(), device=chosen)
        device = self.settings.torch_device()
        loaded = [load_model(path, device) for path in files]
        self.metadata: ModelMetadata = loaded[0][1]
        self.predictor = Predictor([model for model, _ in loaded], self.metadata, device=device)
        tell_licence(f"this model ({self.metadata.model.backbone})", files[0])

    # Without annotations: MLflow takes them for a schema of lists of records, which a volume is not.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Return the masks of one scan, or a list of them for a list of scans.

        params: `output`, `label` (default) for {"label": (X, Y, Z), the class index and 0 for none, lesions over
        organs; "names": {index: name}; "affine"}, or `bits` for {"bits": (W, X, Y, Z) uint32, in which classes
        overlap; "channels": {name: bit}; "affine"}. `classes`: names separated by commas, default all trained ones.
        A volume at the model's spacing gives its class bits alone. Raises BadInput for what cannot be CT, TypeError for
        another kind of input.
        """
        asked = params or {}
        if isinstance(model_input, list):
            return [self._predict(one, asked) for one in model_input]
        return self._predict(model_input, asked)

    def _predict(self, model_input: Any, params: Mapping[str, Any]) -> Any:
        known = trained_classes(self.metadata)
        asked = [name.strip() for name in str(params.get("classes") or "").split(",") if name.strip()]
        classes = list(self.metadata.model.select(asked)) if asked else list(known)
        if untrained := [name for name in classes if name not in known]:
            raise ValueError(f"the model was not trained on {', '.join(untrained)}; it was on {', '.join(known)}")
        if isinstance(model_input, np.ndarray):
            return self.predictor.predict(ArrayScan(_whole_hu(model_input)), classes).bits
        scan = self._scan(model_input)
        found = self.predictor.predict(ArrayScan(scan.image.array), classes)
        cleaned = clean_prediction(found, classes, scan.image.affine, lambda: scan.image, self.settings)
        bits = resample_masks(cleaned.bits, scan.image.affine, scan.original)
        return _answer(bits, classes, scan.original.affine, str(params.get("output") or "label"))

    def _scan(self, asked: Any) -> ScanOnGrid:
        spacing = self.metadata.model.spacing_mm
        if isinstance(asked, Mapping) and set(asked) == {"image", "affine"}:
            return scan_of_array(np.asarray(asked["image"]), np.asarray(asked["affine"]), spacing)
        path = asked["path"] if isinstance(asked, Mapping) and set(asked) == {"path"} else asked
        if not isinstance(path, str | Path):
            kind = f"the keys {sorted(asked)}" if isinstance(asked, Mapping) else type(asked).__name__
            raise TypeError(f"input of {kind}, expected {INPUTS}")
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file or folder; expected {INPUTS}")
        return scan_of_path(Path(path), spacing)


def _whole_hu(volume: NDArray[Any]) -> NDArray[np.int16]:
    if volume.dtype != np.int16 or volume.ndim != 3:
        raise TypeError(
            f"an array of {volume.dtype} with shape {volume.shape}, expected int16 HU (X, Y, Z) at the model's "
            "spacing; any other scan comes with its affine: {'image': array, 'affine': affine}"
        )
    return volume


def _answer(bits: NDArray[np.uint32], classes: list[str], affine: NDArray[np.float64], output: str) -> dict[str, Any]:
    infos = [class_info(name) for name in classes]
    if output == "bits":
        return {"bits": bits, "channels": {info.name: info.channel for info in infos}, "affine": affine}
    if output == "label":
        painted = sorted(infos, key=lambda info: (PAINT_ORDER[info.kind], info.index))
        label = paint(bits, {info.channel: info.index for info in painted})
        return {"label": label, "names": {info.index: info.name for info in infos}, "affine": affine}
    raise ValueError(f"output {output!r}: expected label or bits")


def _require_registered(files: list[Path], about: Path) -> None:
    """Raise WeightsChanged unless the weights have the digest written beside them and that in MLflow's database.

    The second says more: who can change files of the store cannot change it. A model that is loaded from a copy of its
    folder, without its MLflow, has the first alone.
    """
    found, beside = files_digest(files), read_about(about)[WEIGHTS]
    registered = _digest_in_mlflow(about)
    for expected, where in ((beside, f"{about.name} beside them"), (registered, "MLflow")):
        if expected is not None and found != expected:
            raise WeightsChanged(
                f"{', '.join(file.name for file in files)}: SHA-256 {found}, but {where} says {expected}; these are "
                "not the weights that were registered: do not use them"
            )


def _digest_in_mlflow(about: Path) -> str | None:
    model_id = Model.load(str(about.parents[1])).model_id
    if model_id is None:
        return None
    try:
        found = MlflowClient().get_logged_model(model_id).tags.get(WEIGHTS)
    except (MlflowException, OSError):
        return None
    return None if found is None else str(found)
