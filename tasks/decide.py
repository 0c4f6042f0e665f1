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

REJECTED_FOR = ("hu_shift", "hu_scale", "mirrored", "missing")
"""Codes of flags that no expected DSC outweighs."""
REVIEWED_FOR = ("mirrored_perhaps", "hu_clipped", "spacing", "cropped", "noise", "metal")
"""Codes of flags of a scan unlike those the calibration knows: its expected DSC may not hold. Others are remarks."""
OF_ONE_MASK = ("low", "unknown")
"""Codes of reasons that say nothing about the other masks of a case."""
REMARKABLE_Z = 2.5
"""From here on a z-score is named among the reasons."""
FIGURES = {
    "volume": "volume",
    "hu_mean": "mean HU",
    "components": "parts",
    "border": "border touched",
    "x": "position left to right",
    "y": "position front to back",
    "z": "position along the body",
}


@dataclass(frozen=True)
class Bars:
    """Expected DSC from which a mask is accepted, and below which it is rejected; per class where one is named.

    plausible_z: the largest robust z-score that is accepted.
    """

    accept: float = 0.80
    reject: float = 0.50
    classes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    plausible_z: float = 6.0

    def of(self, class_name: str) -> tuple[float, float]:
        """Return (accept, reject) of a class."""
        return self.classes.get(class_name, (self.accept, self.reject))


@dataclass(frozen=True)
class Decision:
    """What becomes of one class in one case. expected_dsc: None where none can be told. reason: in words, never empty.

    codes: of the flags, or `z`, `low`, `unknown`, that spoke against accepting.
    """

    decision: Verdict
    expected_dsc: float | None
    reason: str
    codes: tuple[str, ...] = ()


def bars_of(settings: Settings) -> Bars:
    """Return the bars that the settings state."""
    return Bars(settings.accept_dsc, settings.reject_dsc, settings.decision_bars, settings.plausible_z)


def decide(scores: LabelScores, calibration: Calibration | None, quality: ScanQuality, bars: Bars) -> Decision:
    """Return what becomes of a mask, with the reason; without a calibration it is `review` at best.

    Hard reasons (a mirrored scan, HU that are none, an organ that must be there and is not) reject, whatever DSC is
    expected. A flag of the scan, or a figure too far from human labels, asks for review of what would be accepted. The
    reason names what spoke against the mask, the gravest first.
    """
    flags = tuple(dict.fromkeys((*quality.flags, *scores.flags)))
    expected = None if calibration is None else calibration.expected_dsc(scores)
    accept, reject = bars.of(scores.class_name)
    hard = [flag for flag in flags if _code(flag) in REJECTED_FOR]
    soft = [flag for flag in flags if _code(flag) in REVIEWED_FOR]
    odd = _odd_figures(scores, bars.plausible_z)
    codes = [*map(_code, hard), *map(_code, soft), *(["z"] if odd else [])]
    parts = [*hard]
    if expected is None:
        codes.append("unknown")
        why = "the model is not calibrated" if calibration is None else "too few cases of the class were calibrated on"
        parts.append(f"no expected DSC: {why}")
    elif expected < accept:
        codes.append("low")
        bar = accept if expected >= reject else reject
        doubts = ", ".join(_doubts(scores))
        parts.append(f"expected DSC {expected:.2f} below {bar:.2f}" + (f": {doubts}" if doubts else ""))
    else:
        parts.append(f"expected DSC {expected:.2f}, accepted from {accept:.2f}")
    if odd and not (expected is not None and expected < accept):
        parts.append(", ".join(odd))
    parts += soft
    if not scores.independent:
        parts.append("not independent: the model was trained on this scan, which flatters the scores")
    verdict: Verdict = "accept"
    if hard or (expected is not None and expected < reject):
        verdict = "reject"
    elif codes:
        verdict = "review"
    return Decision(verdict, expected, "; ".join(parts), tuple(dict.fromkeys(codes)))


def case_decision(decisions: Mapping[str, Decision]) -> Decision:
    """Return what becomes of a whole case: the gravest of what holds for all of it, else how many of its masks passed.

    decisions: of its classes. A mask whose expected DSC is low holds back itself alone, unless most do. expected_dsc:
    the mean over the classes of which one is known.
    """
    known = [one.expected_dsc for one in decisions.values() if one.expected_dsc is not None]
    mean = sum(known) / len(known) if known else None
    codes = tuple(dict.fromkeys(code for one in decisions.values() for code in one.codes if code not in OF_ONE_MASK))
    accepted = sum(one.decision == "accept" for one in decisions.values())
    if not codes and 2 * accepted >= len(decisions):
        return Decision("accept", mean, f"{accepted} of {len(decisions)} masks accepted")
    worst = [one for one in decisions.values() if set(one.codes) & set(codes)] or list(decisions.values())
    reason = min(worst, key=lambda one: (one.decision != "reject", one.decision != "review")).reason
    hard = any(code in REJECTED_FOR for code in codes)
    return Decision("reject" if hard else "review", mean, reason, codes or ("low",))


def _code(flag: str) -> str:
    return flag.partition(":")[0]


def _odd_figures(scores: LabelScores, least: float) -> list[str]:
    """Return the figures at least so many spreads from human labels, in words, the oddest first."""
    odd = sorted((item for item in scores.z.items() if abs(item[1]) >= least), key=lambda item: -abs(item[1]))
    return [
        f"{FIGURES.get(name, name)} {abs(z):.1f} robust z {'above' if z > 0 else 'below'} human labels"
        for name, z in odd
    ]


def _doubts(scores: LabelScores) -> list[str]:
    if scores.mean_prob is None or scores.ml == 0:
        return ["nothing found"]
    found = []
    if scores.boundary_entropy is not None:
        found.append(f"boundary entropy {scores.boundary_entropy:.2f} bits")
    found.append(f"mean probability {scores.mean_prob:.2f}")
    if scores.agreement is not None:
        found.append(f"agreement {scores.agreement:.2f}")
    if scores.removed_share >= 0.1:
        found.append(f"{scores.removed_share:.0%} of the mask removed by cleaning")
    return [*found, *_odd_figures(scores, REMARKABLE_Z)]
