"""What writers do to a lake, each a call that may be cut off and repeated: the steps of the model test.

The content of everything follows from its name: version 2 of case "a" has one image, one shipped label and one key,
whoever writes it and however often.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from catalog_rows import AFFINE, GEOMETRY, make_case_row, make_label_row
from numpy.typing import NDArray

from catalog.garbage import collect_garbage
from catalog.keys import ingest_key
from catalog.lake import Lake
from catalog.lake_write import StoredCase
from catalog.tables import Tables
from imaging.volume import Volume

DATASET = "kits"
SHAPE = (3, 4, 5)
SHIPPED = {1: ("liver",), 2: ("liver", "spleen"), 3: ()}
"""Classes that come with each version of a case; version 3 has no label."""

HUMAN = {"state": "annotated", "label_origin": "human"}
"""How annotators' labels are marked."""


def case_name(case: str) -> str:
    """Return the case id."""
    return f"{DATASET}/{case}"


def key_of(version: int) -> str:
    """Return the ingest key of a version of any case."""
    return ingest_key("raw", f"card {version}", "1", (0.8, 1.5, 2.5))


def image_of(case: str, version: int) -> NDArray[np.int16]:
    """Return the HU (X, Y, Z) of one version of a case."""
    return np.random.default_rng([version, *case.encode()]).integers(-1000, 1000, SHAPE, dtype=np.int16)


def bits_of(annotation: str, case: str, version: int) -> NDArray[np.uint32]:
    """Return the class bits (W, X, Y, Z) of one annotation."""
    seed = [version, *annotation.encode(), *case.encode()]
    return np.random.default_rng(seed).integers(0, 2**31, (1, *SHAPE), dtype=np.uint32)


def pseudo_classes(annotation: str) -> tuple[str, ...]:
    """Return the classes of a pseudo-label of that name."""
    return {"pseudo-a": ("colon",), "pseudo-b": ("liver", "colon", "aorta")}[annotation]


class Writer:
    """One process' view of a lake: every method is a whole step and may be repeated."""

    def __init__(self, root: str | Path) -> None:
        self.lake, self.tables = Lake(root), Tables(root)

    def row_of(self, case: str, version: int, **stored: Any) -> dict[str, Any]:
        """Return the case row as an ingest would write it."""
        x, y, z = SHAPE
        own = {"shape_x": x, "shape_y": y, "shape_z": z, "ingest_key": key_of(version)}
        return make_case_row(DATASET, case, **own, **stored)

    def ingest(self, case: str, version: int) -> bool:
        """Write and commit one version of a case; False where it is the current one."""
        if self.tables.has(case_name(case), key_of(version)):
            return False
        return self.write_and_commit(case, version)

    def write_and_commit(self, case: str, version: int) -> bool:
        """Do the same without looking first, as of two writers at once the slower one does."""
        stored = self.store(case, version)
        row = self.row_of(case, version, path=stored.path, manifest=stored.manifest.to_json())
        manifest = stored.annotation_manifest("shipped").to_json()
        labels_rows = [make_label_row(row, name, "shipped", **HUMAN, manifest=manifest) for name in SHIPPED[version]]
        return self.tables.commit_case(row, labels_rows)

    def store(self, case: str, version: int) -> StoredCase:
        """Write the arrays only, as a writer does that gets no further."""
        labels = {"shipped": bits_of("shipped", case, version)} if SHIPPED[version] else {}
        image = Volume(image_of(case, version), AFFINE)
        return self.lake.write_case(DATASET, case, key_of(version), image, GEOMETRY, labels)

    def relabel(self, case: str, version: int, annotation: str) -> int:
        """Add an annotation to a version of a case and commit its rows; return how many were new."""
        row = self.row_of(case, version)
        path = f"volumes/{DATASET}/{case}/{key_of(version)[:12]}.zarr"
        manifest = self.lake.write_annotation(path, annotation, bits_of(annotation, case, version), {"model": "m"})
        text = manifest.to_json()
        return self.tables.commit_labels(
            [make_label_row(row, name, annotation, manifest=text) for name in pseudo_classes(annotation)]
        )

    def withdraw(self, case: str) -> list[str]:
        """Take a case out of use; return its id if it was in use."""
        return self.tables.withdraw([case_name(case)], "consent withdrawn")

    def restore(self, case: str) -> list[str]:
        """Bring a withdrawn case back; return its id if it was withdrawn."""
        return self.tables.restore([case_name(case)])

    def compact(self) -> None:
        """Join small files of the tables."""
        self.tables.compact()

    def gc(self) -> list[str]:
        """Remove all that no row names, however young, and return the paths."""
        return [orphan.path for orphan in collect_garbage(self.tables, self.lake, timedelta(0))]


def carry_out(root: str, step: str, arguments: list[Any]) -> None:
    """Carry out one step in this process, which may be killed meanwhile."""
    getattr(Writer(root), step)(*arguments)
