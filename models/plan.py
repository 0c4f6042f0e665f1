"""Which patch comes next: a case, the class it is centred on, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import class_info
from models.settings import ModelSettings, TrainSettings

Int3 = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class TrainCase:
    """One scan as the sampler sees it.

    annotated: taxonomy channels somebody looked for (absent ones too). shape: voxels X Y Z. foreground: for a channel,
    some of its voxels, (n, 3) X Y Z; a channel that is absent here is missing or has no rows. dataset: whose it is.
    pseudo: those of `annotated` where only a model looked; they have a weight and a share of patches of their own.
    """

    case_id: str
    annotated: tuple[int, ...]
    shape: Int3
    foreground: Mapping[int, NDArray[np.integer[Any]]]
    dataset: str = ""
    pseudo: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if strangers := sorted(set(self.pseudo) - set(self.annotated)):
            raise ValueError(f"{self.case_id}: pseudo-labelled channels {strangers} are not among {self.annotated}")


@dataclass(frozen=True, eq=False)
class Pick:
    """One patch to read. channel: the class it is centred near, or None where it lies anywhere. start: X Y Z."""

    case: TrainCase
    channel: int | None
    start: Int3


@dataclass(frozen=True)
class Shares:
    """What a plan draws in the long run, as shares of all patches that add up to 1.

    classes: by the class a patch is centred on; `anywhere` for the others. datasets, cases: by where it is from.
    pseudo: of patches drawn for what only a model labelled.
    """

    classes: dict[str, float]
    datasets: dict[str, float]
    cases: dict[str, float]
    pseudo: float = 0.0


class _Wheel:
    """Numbers to draw by weight; those of weight 0 are left out."""

    def __init__(self, numbers: Sequence[int], weights: Sequence[float]) -> None:
        kept = [(number, weight) for number, weight in zip(numbers, weights, strict=True) if weight > 0]
        self.numbers = [number for number, _ in kept]
        self.shares = np.array([weight for _, weight in kept]) / max(sum(weight for _, weight in kept), 1e-300)
        self._ends = np.cumsum(self.shares)
        self._even = len({weight for _, weight in kept}) == 1

    def draw(self, random: np.random.Generator) -> int:
        if self._even:  # as before there were weights, so that older runs can be repeated
            return self.numbers[random.integers(len(self.numbers))]
        found = int(np.searchsorted(self._ends, random.random() * self._ends[-1], side="right"))
        return self.numbers[min(found, len(self.numbers) - 1)]


class _Pool:
    """Pairs of case and channel to draw patches for; `own`: the channels of each case that are in this pool."""

    def __init__(
        self, cases: Sequence[TrainCase], own: Sequence[set[int]], wanted: Mapping[int, str], train: TrainSettings
    ) -> None:
        self._foreground = train.foreground
        kept = [(case, channels) for case, channels in zip(cases, own, strict=True) if channels]
        self.cases = [case for case, _ in kept]
        case_weights = [float(train.dataset_weights.get(case.dataset, 1.0)) for case in self.cases]
        self._any = _Wheel(range(len(self.cases)), case_weights)
        showing: dict[int, list[int]] = {}
        for index, (case, channels) in enumerate(kept):
            for channel in sorted(channels):
                if len(case.foreground.get(channel, ())) and case_weights[index] > 0:
                    showing.setdefault(channel, []).append(index)
        self._with = {c: _Wheel(found, [case_weights[index] for index in found]) for c, found in showing.items()}
        present = sorted(showing)
        self._classes = _Wheel(present, [_class_weight(wanted[c], len(showing[c]), train) for c in present])
        if not self._any.numbers or (present and self._foreground and not self._classes.numbers):
            raise ValueError("train: all weights of data sets or of classes are 0, so nothing can be drawn; raise one")

    def draw(self, random: np.random.Generator) -> tuple[TrainCase, int | None]:
        """Return a case, and the channel that the patch is centred near; None: anywhere."""
        if self._classes.numbers and random.random() < self._foreground:
            channel = self._classes.draw(random)
            return self.cases[self._with[channel].draw(random)], channel
        return self.cases[self._any.draw(random)], None

    def shares(self) -> tuple[dict[int | None, float], list[float]]:
        """Return the shares of this pool's patches by channel (None: anywhere) and by case."""
        centred = self._foreground if self._classes.numbers else 0.0
        by_case = np.zeros(len(self.cases))
        by_case[self._any.numbers] += (1 - centred) * self._any.shares
        channels: dict[int | None, float] = {None: 1 - centred}
        for channel, share in zip(self._classes.numbers, self._classes.shares, strict=True):
            channels[channel] = centred * float(share)
            by_case[self._with[channel].numbers] += centred * share * self._with[channel].shares
        return channels, by_case.tolist()


class SamplingPlan:
    """Draws patches: data set weight times class weight.

    A share `foreground` of patches is centred near a voxel of a class drawn by class weight over the classes that
    occur, in a case drawn by data set weight over the cases that show it. The others lie anywhere in a case drawn by
    data set weight. Class weight: `class_weights` (1 where not named), times `lesion_weight` for tumours and cysts,
    times (cases that show it) ** -rarity. Nothing but `random` decides: equal generators give equal patches.
    A share `pseudo_share` of all patches is drawn in this way over what only a model labelled, the others over what
    people did; where there is only one of the two, all are. A patch is learnt from with all labels of its case.
    Patches stay inside a scan that is large enough; a smaller one lies in their middle.
    Raises ValueError when no case annotates a class of the model, for weights of data sets or classes that are not
    there, and where all weights are 0.
    """

    def __init__(self, cases: Sequence[TrainCase], model: ModelSettings, train: TrainSettings) -> None:
        wanted = dict(zip(model.channels, model.classes, strict=True))
        self._patch = model.patch
        known = [case for case in cases if wanted.keys() & set(case.annotated)]
        if not known:
            raise ValueError(
                f"no case annotates any of the {len(model.classes)} classes of the model ({len(cases)} cases given); "
                "check the query or the model's classes"
            )
        _check_named("class_weights", train.class_weights, model.classes)
        _check_named("dataset_weights", train.dataset_weights, sorted({case.dataset for case in known}))
        self._names = wanted
        pseudo = [wanted.keys() & set(case.pseudo) for case in known]
        human = [(wanted.keys() & set(case.annotated)) - made for case, made in zip(known, pseudo, strict=True)]
        share = train.pseudo_share if any(pseudo) else 0.0
        self._pseudo_share = share if any(human) else 1.0
        pools = ((human, 1 - self._pseudo_share), (pseudo, self._pseudo_share))
        self._pools = [(_Pool(known, own, wanted, train), weight) for own, weight in pools if weight > 0]

    def draw(self, random: np.random.Generator) -> Pick:
        """Return the next patch that `random` decides on."""
        pool, _ = self._pools[0]
        if len(self._pools) > 1 and random.random() < self._pseudo_share:  # no number taken where there is no choice
            pool, _ = self._pools[1]
        case, channel = pool.draw(random)
        if channel is not None:
            voxels = case.foreground[channel]
            voxel = voxels[random.integers(len(voxels))]
            # the voxel falls in the middle half of the patch, not always at its centre
            wanted = [
                int(v) - size // 2 + int(random.integers(-(size // 4), size // 4 + 1))
                for v, size in zip(voxel, self._patch, strict=True)
            ]
            return Pick(case, channel, self._inside(wanted, case))
        wanted = [int(random.integers(max(0, n - size) + 1)) for n, size in zip(case.shape, self._patch, strict=True)]
        return Pick(case, None, self._inside(wanted, case))

    def shares(self) -> Shares:
        """Return how the patches of this plan are shared out over classes, data sets and cases."""
        classes: dict[str, float] = {"anywhere": 0.0}
        datasets: dict[str, float] = {}
        cases: dict[str, float] = {}
        for pool, weight in self._pools:
            by_channel, by_case = pool.shares()
            for channel, share in by_channel.items():
                name = "anywhere" if channel is None else self._names[channel]
                classes[name] = classes.get(name, 0.0) + weight * share
            for case, share in zip(pool.cases, by_case, strict=True):
                datasets[case.dataset] = datasets.get(case.dataset, 0.0) + weight * share
                cases[case.case_id] = cases.get(case.case_id, 0.0) + weight * share
        return Shares(classes, datasets, cases, self._pseudo_share)

    def _inside(self, wanted: Sequence[int], case: TrainCase) -> Int3:
        x, y, z = (
            min(max(at, 0), n - size) if n >= size else -((size - n) // 2)
            for at, n, size in zip(wanted, case.shape, self._patch, strict=True)
        )
        return x, y, z


def _class_weight(name: str, cases: int, train: TrainSettings) -> float:
    lesion = train.lesion_weight if class_info(name).is_lesion else 1.0
    return float(train.class_weights.get(name, 1.0) * lesion * cases**-train.rarity)


def _check_named(setting: str, weights: Mapping[str, float], known: Sequence[str]) -> None:
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise ValueError(
            f"train.{setting}: {', '.join(unknown)} not among what is trained on ({', '.join(known)}); correct the "
            "name or leave it out"
        )
