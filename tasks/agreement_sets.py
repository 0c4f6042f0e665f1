"""Label sets of the same scans: annotations in the lake, or folders of NIfTI files by case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import fastremap
import numpy as np

from datasets_registry.taxonomy import all_classes
from imaging.bits import WORD_BITS, Bits, empty_bits, set_channel, words_for
from imaging.metrics.surface import Spacing
from imaging.nifti import read_nifti
from imaging.resample import orient_ras
from imaging.volume import Affine, Volume
from tasks.settings import Settings
from tasks.workspace import existing_workspace, row_dicts

SUFFIXES = (".nii.gz", ".nii")
MASKS = "segmentations"
SAME_MM = 0.01


@dataclass(frozen=True, eq=False)
class Labels:
    """What one annotator says about one case. channels: of the classes that were looked for, empty masks included.

    bits: (W, X, Y, Z). affine: 4 x 4, voxel index to RAS mm.
    """

    bits: Bits
    channels: Mapping[str, int]
    affine: Affine
    where: str

    @property
    def spacing_mm(self) -> Spacing:
        """Distances between voxels along X, Y, Z."""
        x, y, z = (float(value) for value in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


@dataclass(frozen=True)
class Annotation:
    """An annotation of the lake as a label set, under the name it has there."""

    name: str

    def cases(self, settings: Settings, dataset: str | None) -> dict[str, str]:
        """Return the patient, a split group, of each case that it has labels of."""
        tables = existing_workspace(settings).tables
        labelled = set(tables.labels(dataset, annotation=self.name, columns=["case_id"])["case_id"])
        cases = tables.cases(dataset, columns=["case_id", "split_group"])
        return {
            str(case_id): str(patient)
            for case_id, patient in zip(cases["case_id"], cases["split_group"], strict=True)
            if case_id in labelled
        }

    def read(self, settings: Settings, case_id: str) -> Labels:
        """Return the labels of a case."""
        workspace = existing_workspace(settings)
        rows = row_dicts(workspace.tables.labels(case_ids=[case_id], annotation=self.name))
        array = workspace.lake.open_bits(rows[0], self.name)
        case = row_dicts(workspace.tables.cases(case_ids=[case_id]))[0]
        affine = np.array(case["affine"], dtype=np.float64).reshape(4, 4)
        channels = {str(row["class_name"]): int(row["channel"]) for row in rows}
        return Labels(array.read(), channels, affine, f"{case_id}, annotation {self.name}")


@dataclass(frozen=True)
class LabelFolder:
    """A folder of NIfTI files as a label set.

    Label maps are `CASE.nii.gz`, or one file in the folder `CASE`; masks are `CASE/segmentations/CLASS.nii.gz`, and
    only the classes that have a file were looked for.
    values: the values of a label map that make up each class; several may, and a value may belong to several classes.
    Every class in it was looked for in every case. file: name of the label map in a case's folder, where it holds more
    than one file.
    """

    name: str
    folder: Path
    values: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {info.name: (info.index,) for info in all_classes()}
    )
    file: str | None = None

    def cases(self, settings: Settings, dataset: str | None) -> dict[str, str]:  # noqa: ARG002  (as of the lake)
        """Return the names of the cases it has labels of, each a patient; FileNotFoundError without its folder."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"label set {self.name}: no folder {self.folder}")
        inside = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        files = {path.name.removesuffix(".gz").removesuffix(".nii") for path in inside if _is_nifti(path)}
        names = files | {path.name for path in inside if self._in_folder(path) or (path / MASKS).is_dir()}
        return {name: name for name in names}

    def read(self, settings: Settings, case_id: str) -> Labels:  # noqa: ARG002  (as of the lake)
        """Return the labels of a case in RAS order; BadInput or ValueError for a file that cannot be trusted."""
        masks = self.folder / case_id / MASKS
        if self.file is None and masks.is_dir():
            return _read_masks(masks)
        path = self._path(case_id)
        volume = _read_integers(path)
        bits = self._bits(volume, path)
        return Labels(bits, {name: channel for channel, name in enumerate(self.values)}, volume.affine, str(path))

    def _bits(self, volume: Volume, path: Path) -> Bits:
        """Return the classes of a label map; ValueError for a value that belongs to none."""
        found = {int(value) for value in fastremap.unique(volume.array)}
        declared = {0, *(value for values in self.values.values() for value in values)}
        if unknown := sorted(found - declared):
            raise ValueError(f"{path}: values {unknown} belong to no class; declared are {sorted(declared)} (--values)")
        words = np.zeros((words_for(len(self.values)), max(declared) + 1), dtype=np.uint32)
        for channel, values in enumerate(self.values.values()):
            words[channel // WORD_BITS, list(values)] |= np.uint32(1 << channel % WORD_BITS)
        return np.stack([word[volume.array] for word in words])

    def _path(self, case_id: str) -> Path:
        beside = [self.folder / f"{case_id}{suffix}" for suffix in SUFFIXES]
        found = [path for path in beside if path.is_file()] or self._in_folder(self.folder / case_id)
        if len(found) != 1:
            raise ValueError(
                f"label set {self.name}, case {case_id}: {len(found)} label maps in {self.folder}, expected one; name "
                f"the file of a case's folder with NAME=FOLDER:FILE"
            )
        return found[0]

    def _in_folder(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        if self.file is not None:
            return [folder / self.file] if (folder / self.file).is_file() else []
        return sorted(path for path in folder.iterdir() if _is_nifti(path))


LabelSet = Annotation | LabelFolder


def check_same_grid(one: Labels, other: Labels) -> None:
    """Refuse labels that do not lie on one grid, to `SAME_MM` at the corners."""
    if one.bits.shape[1:] != other.bits.shape[1:]:
        raise ValueError(
            f"{one.where} has shape {one.bits.shape[1:]}, {other.where} {other.bits.shape[1:]}: not one scan"
        )
    shift = _shift_mm(one.affine, other.affine, one.bits.shape[1:])
    if shift > SAME_MM:
        raise ValueError(f"{one.where} and {other.where} lie {shift:.2f} mm apart, expected at most {SAME_MM} mm")


def _read_masks(folder: Path) -> Labels:
    """Return the labels of a folder with one mask a class."""
    files = sorted(path for path in folder.iterdir() if _is_nifti(path))
    if not files:
        raise ValueError(f"{folder}: no .nii.gz files, expected one mask a class")
    first, bits = None, None
    for channel, path in enumerate(files):
        volume = _read_integers(path)
        if first is None or bits is None:
            first, bits = volume, empty_bits(volume.shape, len(files), "F")
        elif volume.shape != first.shape or _shift_mm(volume.affine, first.affine, volume.shape) > SAME_MM:
            raise ValueError(f"{path}: another grid than {files[0].name} beside it; masks of one scan share theirs")
        set_channel(bits, channel, volume.array != 0)
    assert first is not None
    assert bits is not None
    names = [path.name.removesuffix(".gz").removesuffix(".nii") for path in files]
    return Labels(bits, {name: channel for channel, name in enumerate(names)}, first.affine, str(folder))


def _read_integers(path: Path) -> Volume:
    volume = orient_ras(read_nifti(path))
    if np.issubdtype(volume.array.dtype, np.integer):
        return volume
    whole = volume.array.astype(np.int32)
    broken = volume.array[volume.array != whole]
    if len(broken):
        raise ValueError(f"{path}: {len(broken)} values that are no integers, such as {broken[0]}; not a label map")
    return volume.with_array(whole)


def _shift_mm(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """Return how far the corners of one grid lie from those of another, at most."""
    corners = np.array([[*np.multiply(place, shape), 1.0] for place in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")
