"""Accept, review or reject: what becomes of a predicted mask, and why, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from imaging.scan_quality import ScanQuality
from tasks.calibration import Calibration
from tasks.label_scores import LabelScores
from tasks.settings import Settings

Verdict = Literal["accept", "review", "reject"]


@dataclass(frozen=True)
class Bars:
    """Expected DSC from which a mask is accepted, and below which it is rejected; per class where one is named."""

    accept: float = 0.80
    reject: float = 0.50
    classes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, class_name: str) -> tuple[float, float]:
        """Return (accept, reject) of a class."""
        return self.classes.get(class_name, (self.accept, self.reject))


@dataclass(frozen=True)
class Decision:
    """What becomes of one class in one case. expected_dsc: None without a calibration."""

    decision: Verdict
    expected_dsc: float | None
    reason: str


def bars_of(settings: Settings) -> Bars:
    """Return the bars that the settings state."""
    raise NotImplementedError


def decide(scores: LabelScores, calibration: Calibration | None, quality: ScanQuality, bars: Bars) -> Decision:
    """Return what becomes of a mask, with the reason; without a calibration it is `review` at best.

    Hard reasons (a mirrored scan, HU that are none, an organ that must be there and is not) overrule the expected DSC.
    """
    raise NotImplementedError
