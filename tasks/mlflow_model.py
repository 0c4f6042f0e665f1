"""The script MLflow runs to load a registered version: a network that maps a CT volume to class bits."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np

from models.checkpoint import load_model
from models.infer import Predictor
from models.infer_scan import ArrayScan


class UniversalPyfunc(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Predict from an int16 HU volume, (X, Y, Z) in RAS at the model's spacing, to class bits (W, X, Y, Z)."""

    def load_context(self, context: Any) -> None:
        """Read the safetensors that were logged beside this script: one, or several that predict together."""
        loaded = [load_model(path) for path in sorted(context.artifacts.values())]
        self.predictor = Predictor([model for model, _ in loaded], loaded[0][1])

    # Without annotations: MLflow takes them for a schema of lists of records, which a volume is not.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Return the class bits (W, X, Y, Z) of one volume (X, Y, Z) in HU; no post-processing.

        MLflow checks shape and dtype by the signature logged with the model.
        """
        return self.predictor.predict(ArrayScan(np.asarray(model_input))).bits


mlflow.models.set_model(UniversalPyfunc())
