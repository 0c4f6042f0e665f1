"""From scores to the DSC to be expected: a monotone map, fitted on held-out cases with human labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.label_scores import LabelScores


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted map. run_id: MLflow run it is kept in, None for one that is not kept."""

    run_id: str | None = None

    def expected_dsc(self, scores: LabelScores) -> float | None:
        """Return the DSC to be expected of a mask, 0 to 1; None for a class the map knows nothing about."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain values for JSON."""
        raise NotImplementedError
