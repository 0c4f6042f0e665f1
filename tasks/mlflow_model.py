"""The script MLflow runs to load a registered version: a network that maps a CT volume to class bits."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
from numpy.typing import NDArray

from models.checkpoint import load_model
from models.infer import predict_bits


class UniversalPyfunc(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Predict from an int16 HU volume, (X, Y, Z) in RAS at the model's spacing, to class bits (W, X, Y, Z)."""

    def load_context(self, context: Any) -> None:
        """Read the safetensors checkpoint that was logged beside this script."""
        self.model, self.metadata = load_model(context.artifacts["checkpoint"])

    def predict(self, context: Any, model_input: NDArray[np.int16], params: Any = None) -> NDArray[np.uint32]:  # noqa: ARG002
        """Return the class bits of one volume; no post-processing."""
        return predict_bits(self.model, self.metadata, np.asarray(model_input)).bits


mlflow.models.set_model(UniversalPyfunc())
