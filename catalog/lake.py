"""`Lake`: the stored volumes of a factory, addressed by table rows."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog import keys, lake_read, lake_write
from catalog.errors import LakeDamage
from catalog.files import files_of
from catalog.lake_read import Index, Patch, StoredArray
from catalog.lake_write import Bits, StoredCase
from catalog.location import Location
from catalog.manifest import METADATA_NAME, Manifest
from catalog.writing import naming_the_write
from imaging.volume import Volume

OPEN_ARRAYS = 256
"""Opened arrays kept per process; one holds some ten kilobytes and, in a local lake, its shard's file."""


class Lake:
    """The folder `<root>/volumes`, written case by case and read by table row.

    root: the lake's place, which also holds `tables/`: a local folder, or a URL (`s3://bucket/prefix`). A row is any
    mapping with the columns `case_id`, `path` and `manifest` of `Tables.cases()` or `Tables.labels()`. A Lake may be
    shared by threads and sent to other processes; one by URL reaches spawned processes only, not forked ones.
    """

    def __init__(self, root: str | Path | Location) -> None:
        self.location = Location.of(root)
        self.files = files_of(self.location)
        self._opened: OrderedDict[tuple[str, str], tuple[str, StoredArray]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Lake], tuple[Location]]:
        return (Lake, (self.location,))

    @property
    def root(self) -> Path:
        """The folder of a local lake; ValueError for one in an object store."""
        return self.location.folder

    def write_case(
        self,
        dataset: str,
        native_id: str,
        ingest_key: str,
        image: Volume,
        geometry: Mapping[str, Any],
        labels: Mapping[str, Bits] | None = None,
    ) -> StoredCase:
        """Write image and annotations of one case; nobody sees them before `Tables.commit_case`.

        image: int16 HU, axis-aligned RAS. geometry: JSON-able facts of the raw scan (original_shape, original_affine,
        original_orientation, original_spacing_mm ...); the image's steps are written down besides. labels: annotation
        name -> (W, X, Y, Z) uint32 on the image's grid. The same arguments give the same bytes. A sound case of this
        key is left alone (`created` False), a damaged one is put right. ValueError for voxels that may not be stored,
        WriteFailed where the disk refuses.
        """
        arrays = [image.array, *(labels or {}).values()]
        with naming_the_write(f"{self.location}/volumes/{dataset}/{native_id}", sum(array.nbytes for array in arrays)):
            return lake_write.store_case(self.files, dataset, native_id, ingest_key, image, geometry, labels or {})

    def write_annotation(
        self, case_path: str, annotation: str, bits: Bits, attributes: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Add `labels/<annotation>/` to a stored case and return its manifest, for the label rows.

        bits: (W, X, Y, Z) uint32. attributes: JSON-able, kept with the array. Repeating it with the same content
        changes nothing; AnnotationExists where the name is taken by other content, FileNotFoundError without a case,
        WriteFailed where the disk refuses.
        """
        keys.check_name("annotation", annotation)
        metadata = f"{case_path}/{METADATA_NAME}"
        if not isinstance(self.files.sizes([metadata]).get(metadata), int):
            raise FileNotFoundError(
                f"{case_path}: no such case in the lake {self.location}; give the `path` of a case row"
            )
        image = lake_read.open_stored(self.location, self.files, case_path, case_path, "0", Manifest({}))
        bits = lake_write.check_bits(bits, image.shape, f"{case_path}: {annotation}")
        with naming_the_write(f"{self.location}/{case_path}/{lake_write.LABELS}/{annotation}", bits.nbytes):
            return lake_write.store_annotation(self.files, case_path, annotation, bits, attributes or {}, image.affine)

    def open_image(self, row: Mapping[str, Any]) -> StoredArray:
        """Return a case's image at full resolution; LakeDamage where its files are not what the row says.

        row: a row of `Tables.cases()`.
        """
        return self._open(row, "0")

    def open_bits(self, row: Mapping[str, Any], annotation: str) -> StoredArray:
        """Return a case's class bits; LakeDamage where their files are not what the row says.

        row: a row of `Tables.labels()` with that annotation, or, for annotations written with the case, its case row.
        """
        return self._open(row, f"{lake_write.LABELS}/{annotation}/0")

    def read_patch(self, row: Mapping[str, Any], start_xyz: Index, size_xyz: Index) -> Patch[Any]:
        """Return int16 HU (X, Y, Z) of a box at `start_xyz`, air beyond the scan, and which part is the scan's."""
        return self.open_image(row).read_patch(start_xyz, size_xyz)

    def read_bits_patch(self, row: Mapping[str, Any], annotation: str, start_xyz: Index, size_xyz: Index) -> Patch[Any]:
        """Return uint32 bits (W, X, Y, Z) of a box at `start_xyz`, 0 beyond the scan, and which part is the scan's."""
        return self.open_bits(row, annotation).read_patch(start_xyz, size_xyz)

    def _open(self, row: Mapping[str, Any], array_path: str) -> StoredArray:
        case_id, path, text = str(row["case_id"]), str(row["path"]), str(row["manifest"])
        with self._lock:
            kept = self._opened.get((path, array_path))
            if kept is not None and kept[0] == text and kept[1].process == os.getpid():
                self._opened.move_to_end((path, array_path))
                return kept[1]
        manifest = Manifest.from_json(text)
        if array_path != "0":
            manifest = manifest.part(array_path.removesuffix("0"))
        else:
            manifest = Manifest({p: e for p, e in manifest.files.items() if not p.startswith(f"{lake_write.LABELS}/")})
        if not manifest.files:
            raise LakeDamage(
                case_id, f"{path}/{array_path}", "nothing of it in the row's manifest", "a row that lists it"
            )
        opened = lake_read.open_stored(self.location, self.files, case_id, path, array_path, manifest)
        with self._lock:
            self._opened[(path, array_path)] = (text, opened)
            while len(self._opened) > OPEN_ARRAYS:
                self._opened.popitem(last=False)
        return opened
