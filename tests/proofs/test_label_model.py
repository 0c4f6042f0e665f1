"""The label model test: no order of commits, reviews, corrections and retractions hides or changes a human label.

CTFACTORY_MODEL_EXAMPLES: how many orders are tried; `make proofs` takes 200.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from label_machine import LabelMachine

TestLabels = LabelMachine.TestCase
TestLabels.settings = settings(
    max_examples=int(os.environ.get("CTFACTORY_MODEL_EXAMPLES", "4")),
    stateful_step_count=20,
    deadline=None,
    database=None,
    derandomize="CTFACTORY_MODEL_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
