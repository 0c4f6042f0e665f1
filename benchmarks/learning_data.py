"""The miniatures of the learning study, in memory: a file of scans with their full truth, and views to train on.

Only the network, the class table and class bits are imported here, so that the study runs where the lake cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, get_channel
from models.plan import Int3, TrainCase
from models.sampling import Box

Labels = Literal["partial", "full", "naive"]
AIR_HU = -1024
SAMPLED = 256
"""Voxels of a class kept for the sampler, as the lake keeps some."""


@dataclass(frozen=True, eq=False)
class StudyScan:
    """One scan on the study's grid with its full truth.

    annotated: names of the classes that its data set annotates in it. image: (X, Y, Z) int16 HU, RAS, cut to the
    network's window. bits: (W, X, Y, Z) uint32, every class, whoever annotates it.
    """

    case_id: str
    dataset: str
    annotated: tuple[str, ...]
    held_out: bool
    image: NDArray[np.int16]
    bits: Bits

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the true mask (X, Y, Z) of a class."""
        return get_channel(self.bits, class_info(name).channel)


@dataclass(frozen=True, eq=False)
class Study:
    """Scans of all sets, and the spacing of their grid, X Y Z in mm."""

    scans: tuple[StudyScan, ...]
    spacing_mm: tuple[float, float, float]

    def training(self, datasets: Sequence[str]) -> list[StudyScan]:
        """Return the scans of `datasets` to train on."""
        return [scan for scan in self.scans if not scan.held_out and scan.dataset in datasets]

    def held_out(self, datasets: Sequence[str]) -> list[StudyScan]:
        """Return the scans of `datasets` that no network is trained on."""
        return [scan for scan in self.scans if scan.held_out and scan.dataset in datasets]


def save_study(path: Path, study: Study) -> None:
    """Write a study to one compressed .npz file."""
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    for number, scan in enumerate(study.scans):
        arrays[f"image{number}"], arrays[f"bits{number}"] = scan.image, scan.bits
        rows.append({key: value for key, value in vars(scan).items() if key not in ("image", "bits")})
    described = json.dumps({"spacing_mm": study.spacing_mm, "scans": rows})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=np.array(described), allow_pickle=False, **arrays)


def load_study(path: Path) -> Study:
    """Return the study that `save_study` wrote; FileNotFoundError says how to make it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make it with `python -m benchmarks.learning prepare {path}`")
    with np.load(path) as stored:
        about = json.loads(str(stored["about"]))
        scans = tuple(
            StudyScan(
                **{**row, "annotated": tuple(row["annotated"])},
                image=stored[f"image{number}"],
                bits=stored[f"bits{number}"],
            )
            for number, row in enumerate(about["scans"])
        )
    x, y, z = about["spacing_mm"]
    return Study(scans, (x, y, z))


class StudySource:
    """Patches of scans in memory, a `models.sampling.PatchSource`.

    labels: `partial`, what each set annotates, as it is; `full`, every class everywhere; `naive`, what each set
    annotates, and everything else said to be background. Bits that the labels do not hold are never handed out.
    classes: what is trained, in any order.
    """

    def __init__(self, scans: Sequence[StudyScan], classes: Sequence[str], labels: Labels) -> None:
        self._images: dict[str, NDArray[np.int16]] = {}
        self._bits: dict[str, Bits] = {}
        self._cases: list[TrainCase] = []
        for scan in scans:
            drawn = [name for name in classes if labels == "full" or name in scan.annotated]
            looked_for = list(classes) if labels == "naive" else drawn
            if not looked_for:
                continue
            self._images[scan.case_id] = scan.image
            self._bits[scan.case_id] = scan.bits & _selector(drawn, len(scan.bits))
            self._cases.append(
                TrainCase(
                    case_id=scan.case_id,
                    annotated=tuple(sorted(class_info(name).channel for name in looked_for)),
                    shape=_int3(scan.image.shape),
                    foreground=dict(_foreground(scan, drawn)),
                    dataset=scan.dataset,
                )
            )

    def cases(self) -> Sequence[TrainCase]:
        """Return the scans that annotate a class of the study, in the order given."""
        return self._cases

    def read(self, case_id: str, start_xyz: Int3, size_xyz: Int3) -> tuple[NDArray[np.int16], NDArray[np.uint32], Box]:
        """Return image HU (X, Y, Z), class bits (W, X, Y, Z) and the part inside the scan, of a box."""
        stored = self._images[case_id]
        image = np.full(size_xyz, AIR_HU, np.int16)
        bits = np.zeros((len(self._bits[case_id]), *size_xyz), np.uint32)
        inside, into = [], []
        for start, size, length in zip(start_xyz, size_xyz, stored.shape, strict=True):
            low, high = max(0, start), min(length, start + size)
            inside.append(slice(low, high))
            into.append(slice(low - start, high - start))
        x, y, z = into
        image[x, y, z] = stored[tuple(inside)]
        bits[:, x, y, z] = self._bits[case_id][(slice(None), *inside)]
        return image, bits, (x, y, z)


def annotated_cases(scans: Sequence[StudyScan], classes: Sequence[str]) -> dict[str, int]:
    """Return for each class in how many scans somebody looked for it."""
    return {name: sum(name in scan.annotated for scan in scans) for name in classes}


def _selector(names: Sequence[str], words: int) -> NDArray[np.uint32]:
    """Return (W, 1, 1, 1) words with the bit of each named class set."""
    selector = np.zeros((words, 1, 1, 1), np.uint32)
    for name in names:
        word, bit = divmod(class_info(name).channel, 32)
        selector[word] |= np.uint32(1) << np.uint32(bit)
    return selector


def _foreground(scan: StudyScan, names: Sequence[str]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for name in names:
        voxels = np.argwhere(scan.mask(name))
        if len(voxels):
            kept = np.random.default_rng(0).permutation(len(voxels))[:SAMPLED]
            yield class_info(name).channel, voxels[np.sort(kept)]


def _int3(shape: Sequence[int]) -> Int3:
    x, y, z = shape
    return int(x), int(y), int(z)
