"""Agreement of two masks or label volumes: overlap, surface distances, lesions found."""

from imaging.metrics.lesions import LesionMatches, PredictedLesion, TruthLesion, match_lesions
from imaging.metrics.overlap import Overlap, dice, overlap_bits
from imaging.metrics.scores import MaskScores, score_bits, score_masks, surface_dice

__all__ = [
    "LesionMatches",
    "MaskScores",
    "Overlap",
    "PredictedLesion",
    "TruthLesion",
    "dice",
    "match_lesions",
    "overlap_bits",
    "score_bits",
    "score_masks",
    "surface_dice",
]
