"""Reading sub-boxes of stored arrays; what is missing, torn or altered raises LakeDamage and is never read as air."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from catalog import layout
from catalog.damage import find_damage
from catalog.errors import LakeDamage, LakeUnreachable
from catalog.files import Files
from catalog.location import Location
from catalog.manifest import METADATA_NAME, Manifest
from catalog.objects import ObjectFiles
from catalog.shard import Chunks, Shard
from catalog.shard_object import ObjectShard
from imaging.volume import Affine

Index = tuple[int, int, int]
Box = tuple[slice, slice, slice]
UNREADABLE = (RuntimeError, ValueError, OSError, LookupError, TypeError, BaseError)
"""What zarr, its pipelines and stores raise over bytes that they cannot make sense of."""

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Patch(Generic[Scalar]):
    """Voxels of a box that may reach beyond the scan.

    array: (X, Y, Z) HU or (W, X, Y, Z) bits, padded with air or no class. valid: the part of the box inside the scan,
    as slices of the patch's own X, Y, Z axes (empty slices where the box misses the scan).
    """

    array: NDArray[Scalar]
    valid: Box


def clip_box(start: Index, size: Index, shape: Index) -> tuple[Box, Box]:
    """Return the part of a box inside a grid of `shape`: as slices of the grid, and as slices of the box.

    start may be negative; both parts are empty along an axis where the box misses the grid.
    """
    inside, within = [], []
    for begin, length, limit in zip(start, size, shape, strict=True):
        low = min(max(begin, 0), limit)
        high = max(min(begin + length, limit), low)
        inside.append(slice(low, high))
        within.append(slice(low - begin, high - begin) if high > low else slice(0, 0))
    return (inside[0], inside[1], inside[2]), (within[0], within[1], within[2])


@dataclass(frozen=True)
class StoredArray:
    """One opened array of a case: (X, Y, Z) HU or (W, X, Y, Z) bits, its shape and affine.

    shard: its file or object, where the array is in the lake's own layout; others go through zarr.
    May be kept for long and used from several threads.
    """

    case_id: str
    file: str
    files: Files
    lake: Location
    path: str
    array: zarr.Array[Any]
    affine: Affine
    process: int
    shard: Chunks | None

    @property
    def shape(self) -> Index:
        """Voxels along X, Y, Z."""
        z, y, x = self.array.shape[-3:]
        return (x, y, z)

    @property
    def words(self) -> int | None:
        """Words of class bits per voxel; None for an image."""
        return self.array.shape[0] if self.array.ndim == 4 else None

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Return the voxels of `box` (slices of X, Y, Z within the grid), or all, in X, Y, Z order.

        The result is a transposed view of what was read (x runs fastest in memory). IndexError for a box outside
        the grid, LakeDamage for a chunk that is missing or fails its checksum.
        """
        x, y, z = box or tuple(slice(0, n) for n in self.shape)
        for axis, (part, limit) in enumerate(zip((x, y, z), self.shape, strict=True)):
            if not 0 <= part.start <= part.stop <= limit or part.step not in (None, 1):
                raise IndexError(f"{self.case_id}: box {part} along axis {'XYZ'[axis]}, expected within 0..{limit}")
        found = self._read_through_zarr((z, y, x)) if self.shard is None else self.shard.read((z, y, x))
        return found.transpose(2, 1, 0) if self.words is None else found.transpose(0, 3, 2, 1)

    def _read_through_zarr(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box of Z, Y, X; zarr gives fill values for what is missing, so none may be there."""
        # A handle inherited by a forked child would wait forever for threads of its parent.
        array = self.array if self.process == os.getpid() else layout.open_array(self.lake, self.path)
        try:
            found = np.asarray(array[(..., *box)])
        except UNREADABLE as error:
            self._ask_the_store()
            raise LakeDamage(self.case_id, self.file, f"unreadable ({error})", "sound chunks") from error
        fill = layout.IMAGE_FILL if self.words is None else layout.BITS_FILL
        if found.size and (found.min() if self.words is None else found.max()) == fill:
            self._ask_the_store()
            raise LakeDamage(self.case_id, self.file, f"voxels of value {fill}", "every chunk written")
        return found

    def _ask_the_store(self) -> None:
        """Raise LakeUnreachable where the store of a lake by URL does not answer: that is no damage."""
        if not self.files.is_local:
            self.files.sizes([self.file])

    def read_patch(self, start: Index, size: Index) -> Patch[Any]:
        """Return the box of `size` voxels at `start`, padded with air (-1024 HU) or no class beyond the grid."""
        inside, within = clip_box(start, size, self.shape)
        found = self.read(inside)
        if found.shape[-3:] == tuple(size):
            return Patch(found, within)
        lead = found.shape[:-3]
        # Filled in the order the lake stores, so that a patch lies in memory the same way whether padded or not.
        stored = np.full((*lead, *reversed(size)), 0 if lead else layout.AIR_HU, dtype=found.dtype)
        padded = stored.transpose(0, 3, 2, 1) if lead else stored.transpose(2, 1, 0)
        padded[(..., *within)] = found
        return Patch(padded, within)


def open_stored(
    lake: Location, files: Files, case_id: str, case_path: str, array_path: str, manifest: Manifest
) -> StoredArray:
    """Return the array `array_path` ("0", "labels/human/0") of a case after comparing its files with `manifest`.

    Raises LakeDamage for the first file that is absent, of another length, or (zarr.json) of other content. What a
    local shard holds is compared chunk by chunk as it is read; one in an object store is compared here, by the SHA-256
    that the store keeps with it or, where it keeps none, of all its bytes.
    """
    for damage in find_damage(case_id, files, case_path, manifest, read_data=False):
        raise damage
    path = f"{case_path}/{array_path}"
    try:
        group = json.loads(files.read(f"{case_path}/{array_path.removesuffix('0')}{METADATA_NAME}"))
        array = layout.open_array(lake, path)
        affine = _affine_of(group["attributes"], array.ndim - 3)
        shard = "/".join(["c", *["0"] * array.ndim])
        file, entry = f"{path}/{shard}", manifest.files.get(f"{array_path}/{shard}")
        direct: Chunks | None = None
        if entry is not None and lake.is_local:
            direct = Shard.of(lake.folder / path, case_id, file, array, entry)
        if entry is not None and direct is None:
            found = files.noted_sha256(file) or files.sha256(file)
            if found != entry.sha256:
                raise LakeDamage(case_id, file, f"SHA-256 {found}", f"SHA-256 {entry.sha256}")
        if entry is not None and isinstance(files, ObjectFiles):
            direct = ObjectShard.of(files, case_id, file, array, entry)
    except (LakeUnreachable, LakeDamage):
        raise
    except UNREADABLE as error:
        raise LakeDamage(case_id, path, f"unreadable ({error})", "a Zarr array") from error
    return StoredArray(case_id, file, files, lake, path, array, affine, os.getpid(), direct)


def _affine_of(attributes: dict[str, Any], lead: int) -> Affine:
    """Return the affine (X, Y, Z) of level "0" from its OME metadata."""
    scale, translation = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    affine = np.eye(4)
    affine[[0, 1, 2], [0, 1, 2]] = scale["scale"][lead:][::-1]
    affine[:3, 3] = translation["translation"][lead:][::-1]
    return affine
