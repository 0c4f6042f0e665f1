"""Chunks of a shard in an object store: those of a box in few requests, where zarr makes one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from catalog.errors import LakeUnreachable
from catalog.manifest import FileEntry
from catalog.objects import ObjectFiles
from catalog.shard import Chunks, Look, Ranges, fits


class ObjectShard(Chunks):
    """A shard in an object store. Its index is read once, the chunks of a box together; neighbours share a request."""

    def __init__(self, files: ObjectFiles, case_id: str, file: str, array: zarr.Array[Any], entry: FileEntry) -> None:
        super().__init__(case_id, file, array, entry)
        self._files = files
        begin = max(0, entry.size - self._index_bytes)
        (stored,) = self._fetch([[begin, min(self._index_bytes, entry.size)]])
        self._index: NDArray[np.uint64] = self._index_of(stored)

    @classmethod
    def of(
        cls, files: ObjectFiles, case_id: str, file: str, array: zarr.Array[Any], entry: FileEntry
    ) -> ObjectShard | None:
        """Return the shard of `array`, stored as `file`, or None where it is laid out in another way."""
        return cls(files, case_id, file, array, entry) if fits(array) else None

    def _look(self) -> Look:
        return Look(self._index, self._fetch)

    def _fetch(self, ranges: Ranges) -> Sequence[bytes]:
        try:
            return self._files.ranges(self._file, ranges)
        except FileNotFoundError as error:
            raise self._damage("no such object", f"{self._entry.size} bytes") from error
        except LakeUnreachable:
            # A store also refuses ranges beyond the end of an object that is shorter than it was.
            size = self._files.sizes([self._file]).get(self._file)
            if size == self._entry.size:
                raise
            raise self._damage(f"{size} bytes", f"{self._entry.size} bytes") from None
