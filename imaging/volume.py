"""`Volume`: an array of voxels together with where it lies in the patient."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.errors import BadInput

Affine = NDArray[np.float64]
"""4 x 4, voxel index (i, j, k) to world mm, RAS+."""


@dataclass(frozen=True)
class Step:
    """One thing done to a volume: a verb and its JSON-able parameters."""

    name: str
    parameters: dict[str, Any]

    def as_json(self) -> str:
        """Return the step as one line of canonical JSON."""
        return json.dumps({"step": self.name, **self.parameters}, sort_keys=True)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in patient space.

    array: (X, Y, Z), any real dtype; the first axis is index i of the affine, whatever way it points.
    affine: 4 x 4 float64, voxel index to world mm in RAS+ (x grows towards the patient's right, y towards
    anterior, z towards superior), the NIfTI convention. DICOM's LPS is converted when it is read.
    steps: what was done to the volume since it was read, oldest first.
    Raises BadInput when the affine is singular or not finite, or the array is not 3-D.
    """

    array: NDArray[Any]
    affine: Affine
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise BadInput(
                "dimensions", "volume", f"shape {self.array.shape}", "three axes (X, Y, Z)", "give one 3-D image"
            )
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise BadInput(
                "affine", "volume", f"affine {affine.tolist()}", "4 x 4 finite numbers", "repair the file's header"
            )
        determinant = float(np.linalg.det(affine[:3, :3]))
        if abs(determinant) < 1e-9:
            raise BadInput(
                "affine",
                "volume",
                f"affine determinant {determinant:g}, column lengths {np.linalg.norm(affine[:3, :3], axis=0).tolist()}",
                "a determinant other than 0 (voxel volume in mm3)",
                "repair the file's header",
            )
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the three array axes."""
        x, y, z = self.array.shape
        return (x, y, z)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(x), float(y), float(z))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def world_mm(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """Return the RAS mm position of voxel indices, (N, 3) to (N, 3)."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Return a volume of other voxels on the same grid; its shape must be this one's."""
        if array.shape != self.array.shape:
            raise ValueError(f"array of shape {array.shape} does not fit a grid of shape {self.array.shape}")
        return replace(self, array=array)

    def with_step(self, name: str, **parameters: Any) -> Volume:
        """Return the same volume with one more step written down."""
        return replace(self, steps=(*self.steps, Step(name, parameters)))
