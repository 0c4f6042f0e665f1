"""What people and models do to labels, each a call: the steps of the label model test.

The content of everything follows from its name, as in `lake_steps`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from catalog_rows import AFFINE, make_label_row
from lake_steps import SHAPE, Writer, bits_of, case_name, key_of
from numpy.typing import NDArray

from catalog.label_decisions import Verdict, judge, restore, retract
from datasets_registry.taxonomy import class_info
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.review import Imported, import_mask
from tasks.settings import Settings
from tasks.workspace import Workspace

CLASSES = ("liver", "spleen", "aorta")
DECISIONS = {
    "pseudo-1": {"liver": "accept", "spleen": "review", "aorta": "reject"},
    "pseudo-2": {"liver": "review", "spleen": "accept", "aorta": "accept"},
    "pseudo-3": {"liver": None, "spleen": "reject"},
}
"""Annotation of each model version -> its classes and what the factory decides about them."""
WHO = {"who": "somebody", "why": "a reason"}


def drawn(case: str, classes: tuple[str, ...], seed: int) -> NDArray[np.uint8]:
    """Return the label map (X, Y, Z) of a reviewer: one voxel in two of each class, values as exported."""
    random = np.random.default_rng([seed, *case.encode()])
    values = np.array([0, *(class_info(name).index for name in classes)], np.uint8)
    return values[random.integers(0, len(values), SHAPE)]


class LabelWriter(Writer):
    """One process' view of a lake whose scans were read on the lake's own grid."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._folder = Path(root)

    def row_of(self, case: str, version: int, **stored: Any) -> dict[str, Any]:
        """Return the case row as an ingest would write it."""
        grid = {"original_shape": list(SHAPE), "original_affine": AFFINE.ravel().tolist()}
        return {**super().row_of(case, version, **stored), **grid}

    def pseudo(self, case: str, version: int, annotation: str) -> int:
        """Let a model label a version of a case; return how many rows were new."""
        row = self.row_of(case, version)
        path = f"volumes/kits/{case}/{key_of(version)[:12]}.zarr"
        text = self.lake.write_annotation(path, annotation, bits_of(annotation, case, version), {}).to_json()
        number = annotation[-1]
        made = {"model_name": "universal", "model_version": number, "flow_run_id": f"flow-{number}", "manifest": text}
        return self.tables.commit_labels(
            [
                make_label_row(row, name, annotation, **made, decision=decision, review_state="pending")
                for name, decision in DECISIONS[annotation].items()
            ]
        )

    def judge(self, case: str, name: str, verdict: Verdict) -> list[str]:
        """Accept or reject the label of a class that is first in line; return the annotations whose verdict is new."""
        found = judge(self.tables, case_name(case), [name], verdict, **WHO)
        return [str(annotation) for annotation in found["annotation"]]

    def correct(self, case: str, classes: tuple[str, ...], seed: int) -> Imported:
        """Import a corrected mask."""
        file = self._folder / "mask.nii.gz"
        write_nifti(Volume(drawn(case, classes, seed), AFFINE), file)
        workspace = Workspace(Settings(workspace=self._folder), self.lake, self.tables)
        return import_mask(workspace, case_name(case), file, classes, **WHO)

    def retract(self, run: str) -> set[tuple[str, str, str, str]]:
        """Take a run's labels back; return them: case, key, annotation, class."""
        return set(retract(self.tables, run, **WHO).itertuples(index=False, name=None))

    def bring_back(self, run: str) -> set[tuple[str, str, str, str]]:
        """Undo a retraction; return the labels."""
        return set(restore(self.tables, run, **WHO).itertuples(index=False, name=None))
