"""The script MLflow runs to load a registered version; what it does stands in the installed package."""

import mlflow

from tasks.pyfunc_model import UniversalPyfunc

mlflow.models.set_model(UniversalPyfunc())
