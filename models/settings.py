"""Settings of a network and of its training: frozen, validated when built, read from YAML presets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from datasets_registry.nearest import nearest_names
from datasets_registry.taxonomy import class_info, class_names, places_of

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRESETS = Path(__file__).with_name("presets")
_TUPLES = ("classes", "spacing_mm", "hu_window", "patch", "zoom_range", "zoom_datasets")


@dataclass(frozen=True)
class ModelSettings:
    """What a network is and what it expects to see.

    backbone: a name of `models.backbones`. classes: names in the order of the output channels.
    text_encoder: `hashing`, `open_clip:<model>:<weights>`, `one_hot` or `random`. prompt: V1-V4.
    spacing_mm: X Y Z of the grid the images lie on. hu_window: HU mapped to 0 and 1. patch: voxels X Y Z.
    """

    backbone: str = "tiny"
    classes: tuple[str, ...] = field(default_factory=class_names)
    text_encoder: str = "hashing"
    prompt: str = "V1"
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    hu_window: tuple[float, float] = (-175.0, 250.0)
    patch: tuple[int, int, int] = (96, 96, 96)

    def __post_init__(self) -> None:
        for name in self.classes:
            class_info(name)
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"model.classes: {self.classes} is empty or repeats a name; name each class once")
        if not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"model.hu_window: {self.hu_window}, expected (low, high) in HU with low < high")
        if len(self.patch) != 3 or min(self.patch) < 8:
            raise ValueError(f"model.patch: {self.patch}, expected three sizes X Y Z of at least 8 voxels")
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"model.spacing_mm: {self.spacing_mm}, expected three positive sizes X Y Z in mm")

    @property
    def channels(self) -> tuple[int, ...]:
        """Taxonomy channel (bit) of each output channel, in output order."""
        return tuple(class_info(name).channel for name in self.classes)

    def select(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the classes called `names`, by name or title (all for None); a KeyError lists the nearest."""
        return self.classes if names is None else tuple(self.classes[place] for place in places_of(names, self.classes))


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    steps: optimiser steps. batch: patches per device and step. lr: peak learning rate of AdamW; it climbs for
    `warmup` steps and then follows a cosine to `lr * lr_floor`. accumulate: batches summed into one step.
    clip_norm: largest gradient norm (0: no clipping). dice_weight, bce_weight: the two parts of the loss.
    loss_weights: how much a class counts in the loss (1 where not named, 0: not at all), for classes of the long tail.
    balance: 0 for the published BCE; up to 1 lets the few voxels of a small organ weigh as much as all others.
    foreground: share of patches centred on a voxel of a class drawn by weight; the rest are random. The weights, all
    even by default: dataset_weights, how often each case of a data set counts (1 where not named; 0: never).
    class_weights: of a class (1 where not named). lesion_weight: times this for tumours and cysts. rarity: -1 to 1; at
    1 a class counts in inverse proportion to the cases that show it, at 0 all alike, at -1 as often as cases show it.
    pseudo_weight: 0 to 1, how much a (case, class) that only a model labelled counts in the loss beside one that a
    person did. pseudo_share: share of patches drawn for what only a model labelled, where there is any.
    shift, stretch: largest intensity shift and change of scale, of the 0-1 range, of a share `shift_share` of patches.
    rotate_share: share of patches turned by 90, 180 or 270 degrees in the axial plane. zoom_share: share of the patches
    of `zoom_datasets` that are magnified, by a factor drawn from `zoom_range`. See `models.augment`.
    ema: decay of the moving average of the weights, which the final model then holds (0: none; see `models.ema`).
    compile: let torch.compile make the backbone faster; its first step takes minutes.
    save_every: steps between checkpoints (0: only at the end). threads: CPU threads (0: leave as is).
    readers: processes that read patches ahead of the network; 0 reads in the training process. They change no batch.
    device: a Fabric accelerator (`cpu`, `cuda`, `auto`); devices, nodes: how many.
    """

    steps: int = 1000
    batch: int = 2
    lr: float = 4e-4
    weight_decay: float = 1e-5
    warmup: int = 50
    lr_floor: float = 0.0
    accumulate: int = 1
    clip_norm: float = 1.0
    dice_weight: float = 1.0
    bce_weight: float = 1.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    balance: float = 0.0
    foreground: float = 0.67
    dataset_weights: Mapping[str, float] = field(default_factory=dict)
    class_weights: Mapping[str, float] = field(default_factory=dict)
    lesion_weight: float = 1.0
    rarity: float = 0.0
    pseudo_weight: float = 0.5
    pseudo_share: float = 0.3
    shift: float = 0.1
    stretch: float = 0.1
    shift_share: float = 0.2
    rotate_share: float = 0.0
    zoom_share: float = 0.0
    zoom_range: tuple[float, float] = (1.3, 1.5)
    zoom_datasets: tuple[str, ...] = ()
    ema: float = 0.0
    compile: bool = False
    seed: int = 0
    precision: Precision = "32-true"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    save_every: int = 0
    threads: int = 0
    readers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "devices", "nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: {getattr(self, name)}, expected at least 1")
        for name in (
            "warmup",
            "weight_decay",
            "clip_norm",
            "dice_weight",
            "bce_weight",
            "shift",
            "stretch",
            "lesion_weight",
            "save_every",
            "readers",
        ):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"train.{name}: {getattr(self, name)}, expected a number of 0 or more")
        for name in (
            "foreground",
            "pseudo_weight",
            "pseudo_share",
            "shift_share",
            "rotate_share",
            "zoom_share",
            "lr_floor",
            "balance",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name}: {getattr(self, name)}, expected a share between 0 and 1")
        if len(self.zoom_range) != 2 or not 1 <= self.zoom_range[0] <= self.zoom_range[1] <= 2:
            raise ValueError(
                f"train.zoom_range: {self.zoom_range}, expected (low, high) with 1 <= low <= high <= 2: less would "
                "need voxels around the patch, more would leave out the voxel that it was drawn for"
            )
        if self.zoom_share and not self.zoom_datasets:
            raise ValueError(
                f"train.zoom_share: {self.zoom_share} without zoom_datasets; name the data sets, or set zoom_share to 0"
            )
        if not -1 <= self.rarity <= 1:
            raise ValueError(f"train.rarity: {self.rarity}, expected a power between -1 and 1")
        if not 0 <= self.ema < 1:
            raise ValueError(f"train.ema: {self.ema}, expected a decay of at least 0 and below 1; 0 keeps no average")
        for name in ("dataset_weights", "class_weights", "loss_weights"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"train.{name}: {getattr(self, name)!r}, expected a name and a weight on each line")
            for key, weight in getattr(self, name).items():
                if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
                    raise ValueError(f"train.{name}: {key} has {weight!r}, expected a weight of 0 or more")
        for key in {**self.class_weights, **self.loss_weights}:
            class_info(key)
        if not 0 < self.lr < 1:
            raise ValueError(f"train.lr: {self.lr}, expected a learning rate between 0 and 1")
        if self.dice_weight + self.bce_weight == 0:
            raise ValueError("train: dice_weight and bce_weight are both 0, so nothing would be learnt; raise one")
        if self.precision not in get_args(Precision):
            raise ValueError(f"train.precision: {self.precision!r}, expected one of {', '.join(get_args(Precision))}")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of the step numbered `step`, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.lr_floor + (1 - self.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


@dataclass(frozen=True)
class Preset:
    """One named pair of settings."""

    model: ModelSettings
    train: TrainSettings


def as_mapping(settings: ModelSettings | TrainSettings) -> dict[str, Any]:
    """Return the settings as JSON-able values, tuples as lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def _checked(kind: type[Any], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        near = {name: nearest_names(name, known, 1) for name in unknown}
        meant = [f"{name} (did you mean {found[0]}?)" if found else name for name, found in near.items()]
        raise KeyError(f"{where}: unknown key {', '.join(meant)}; known keys: {', '.join(known)}")
    return {key: tuple(value) if key in _TUPLES else value for key, value in values.items()}


def model_settings(values: Mapping[str, Any], where: str = "model") -> ModelSettings:
    """Return model settings from plain values; an unknown key is a KeyError that lists the known ones."""
    return ModelSettings(**_checked(ModelSettings, where, values))


def train_settings(values: Mapping[str, Any], where: str = "train") -> TrainSettings:
    """Return training settings from plain values; an unknown key is a KeyError that lists the known ones."""
    return TrainSettings(**_checked(TrainSettings, where, values))


def load_preset(
    name: str | Path, *, model: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None
) -> Preset:
    """Return a preset by name (`demo`, `paper`) or YAML path, with single values replaced by `model` and `train`.

    Raises FileNotFoundError listing the presets, KeyError for an unknown key, ValueError for a bad value.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise FileNotFoundError(f"preset {str(name)!r} not found; give a YAML path or one of: {known}")
    values = yaml.safe_load(path.read_text()) or {}
    unknown = sorted(set(values) - {"model", "train"})
    if unknown:
        raise KeyError(f"{path.name}: unknown section {', '.join(unknown)}; a preset has `model` and `train`")
    return Preset(
        model_settings({**(values.get("model") or {}), **(model or {})}, f"{path.name}: model"),
        train_settings({**(values.get("train") or {}), **(train or {})}, f"{path.name}: train"),
    )
