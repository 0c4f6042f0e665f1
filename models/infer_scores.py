"""What a prediction says beside its masks, summed up while slabs go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from models.infer_bits import threshold
from models.scores import SurfaceEntropy, Total


class NotFiniteLogits(RuntimeError):
    """Some logits of a scan are NaN or infinite: the masks mean nothing. titles: of the classes and free texts."""

    def __init__(self, titles: Sequence[str], precision: str) -> None:
        self.titles = tuple(titles)
        super().__init__(
            f"the network gives NaN or infinite logits in {precision} for {', '.join(titles)}; expected finite "
            "numbers; predict in 32-true (CTFACTORY_PREDICT_PRECISION), compare its weights with their digest "
            "(`ctfactory models verify`), or train it anew"
        )


@dataclass(frozen=True)
class Scores:
    """What a model says about a scan, beside the masks.

    mean_prob: for each class and free text asked for, the mean probability inside its mask, nan where the mask is
    empty. channels: the bit of each. remarks: what had to be done to get through, such as smaller batches.
    boundary_entropy: binary entropy in bits, mean over the voxels at the mask's surface; nan where the mask is empty.
    agreement: mean pairwise DSC of the members of an ensemble, or of test-time variants; None with one.
    """

    mean_prob: dict[str, float]
    channels: dict[str, int]
    remarks: tuple[str, ...] = ()
    boundary_entropy: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)


class Tally:
    """Makes the class bits of slabs that follow one another along an axis, and sums up what scores are made of.

    channels: the bit of each row of the logits, by title. words: of the bits. axis: 0, 1 or 2.
    Sums stay on the device of the logits: nothing makes the host wait for a GPU before `scores`.
    """

    def __init__(self, channels: Mapping[str, int], words: int, axis: int) -> None:
        self._channels, self._words = dict(channels), words
        self._doubt = SurfaceEntropy(list(channels.values()), axis)
        self._sums, self._counts, self._broken = (Total(len(channels)) for _ in range(3))

    def add(self, logits: Tensor) -> Tensor:
        """Take the next slab's logits (C, x, y, z), and return the bits (W, x, y, z) int32 where they are above 0."""
        made, sums, counts = threshold(logits, list(self._channels.values()), self._words)
        self._sums.add(sums)
        self._counts.add(counts)
        # a sum is not finite where one of its numbers is not
        self._broken.add(~logits.sum((1, 2, 3)).isfinite())
        self._doubt.add(logits, made)
        return made

    def scores(self, agreement: Sequence[float | None], remarks: Sequence[str], precision: str) -> Scores:
        """Return the scores of all slabs; no slab may follow. agreement: of each row.

        Raises NotFiniteLogits, naming the `precision`, where a logit was not finite: NaN is not above 0, and its voxel
        would silently be background.
        """
        broken = self._broken.found.tolist()
        if any(broken):
            raise NotFiniteLogits([t for t, bad in zip(self._channels, broken, strict=True) if bad], precision)
        means = (self._sums.found / self._counts.found).tolist()  # 0 / 0, of an empty mask, is nan
        return Scores(
            dict(zip(self._channels, means, strict=True)),
            dict(self._channels),
            tuple(remarks),
            dict(zip(self._channels, self._doubt.means(), strict=True)),
            dict(zip(self._channels, agreement, strict=True)),
        )
