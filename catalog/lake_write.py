"""Writing cases and annotations: whole shards, one writer, visible all at once or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog import keys, layout, ome, shards
from catalog.damage import find_damage
from catalog.errors import AnnotationExists
from catalog.files import Files
from catalog.manifest import METADATA_NAME, Manifest, build_manifest
from imaging.volume import Affine, Volume

VOLUMES = "volumes"
LABELS = "labels"
SUFFIX = ".zarr"
NOTE = ".manifest.json"
DIRECTIONS = "arrays are z, y, x; x grows to the patient's Right, y to Anterior, z to Superior"

Bits = NDArray[np.uint32]
"""Class bits, (W, X, Y, Z) in memory."""


@dataclass(frozen=True)
class StoredCase:
    """A case in the lake, not visible to anybody before its rows are committed.

    path: of its folder, relative to the lake's root. manifest: of the image and of the annotations written with it.
    created: False where the same case lay there already, sound, and was left as it is (another writer was first).
    """

    path: str
    manifest: Manifest
    created: bool

    def annotation_manifest(self, annotation: str) -> Manifest:
        """Return the files of one annotation, as its label rows keep them."""
        return self.manifest.part(f"{LABELS}/{annotation}/")


def _plain(value: Any) -> Any:
    """Return numpy scalars and arrays as what JSON knows; for `json.dumps(default=...)`."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"geometry: found a {type(value).__name__}, expected numbers, text, lists and mappings")


def check_image(image: Volume, where: str) -> None:
    """Raise ValueError unless `image` may enter the lake: int16 HU above the fill value, axis-aligned RAS."""
    if image.array.dtype != np.int16:
        raise ValueError(f"{where}: image is {image.array.dtype}, expected int16 HU; round it when harmonising")
    if image.array.size == 0 or image.array.min() == layout.IMAGE_FILL:
        raise ValueError(
            f"{where}: image of shape {image.shape} is empty or holds {layout.IMAGE_FILL}, "
            "which stands for missing data; replace padding by air (-1024 HU) when reading"
        )
    linear = image.affine[:3, :3]
    if (np.diag(linear) <= 0).any() or np.abs(linear - np.diag(np.diag(linear))).max() > 1e-6:
        raise ValueError(
            f"{where}: affine {image.affine.tolist()}, expected axis-aligned RAS; resample to the lake grid"
        )


def check_bits(bits: Any, shape: tuple[int, int, int], where: str) -> Bits:
    """Return `bits` in memory; ValueError unless they are (W, X, Y, Z) uint32 words on a grid of `shape`.

    A Dask array is computed where its one chunk is a whole shard, and refused otherwise.
    """
    held: Bits = shards.in_memory(bits, where)
    if held.dtype != np.uint32 or held.ndim != 4 or held.shape[0] == 0 or held.shape[1:] != shape:
        raise ValueError(
            f"{where}: bits are {held.dtype} {held.shape}, expected uint32 (words, {', '.join(map(str, shape))}); "
            "put the label on the image's grid"
        )
    if held.max() == layout.BITS_FILL:
        raise ValueError(f"{where}: a voxel lies in all 32 classes of a word, which stands for missing data")
    return held


def write_image(folder: Path, image: Volume, attributes: Mapping[str, Any]) -> None:
    """Write an OME-Zarr image with its levels into the empty `folder`, inside `layout.written_together`.

    attributes: kept under `ctfactory`.
    """
    own = {"directions": DIRECTIONS, "affine": image.affine.tolist(), **attributes}
    plain = json.loads(json.dumps(own, default=_plain, sort_keys=True, allow_nan=False))
    name = str(attributes["case_id"])
    metadata = ome.image_metadata(name, image.affine, layout.LEVELS)
    layout.write_group(folder, {"ome": metadata, "ctfactory": plain})
    level = np.ascontiguousarray(image.array.transpose(2, 1, 0))  # (X, Y, Z) -> (Z, Y, X)
    for number in range(layout.LEVELS):
        if number:
            level = layout.halve_image(level)
        layout.write_array(folder / str(number), level, layout.IMAGE_FILL, ome.SPACE)


def write_bits(folder: Path, annotation: str, bits: Bits, affine: Affine, attributes: Mapping[str, Any]) -> None:
    """Write class bits as an OME-Zarr label into `folder`, inside `layout.written_together`; see `write_image`."""
    plain = json.loads(json.dumps(dict(attributes), default=_plain, sort_keys=True, allow_nan=False))
    layout.write_group(folder, {"ome": ome.label_metadata(annotation, affine, layout.LEVELS), "ctfactory": plain})
    level = np.ascontiguousarray(bits.transpose(0, 3, 2, 1))  # (W, X, Y, Z) -> (W, Z, Y, X)
    for number in range(layout.LEVELS):
        if number:
            level = layout.halve_bits(level)
        layout.write_array(folder / str(number), level, layout.BITS_FILL, ome.LABEL_AXES)


def bits_digest(bits: Bits, attributes: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of class bits and their attributes, whatever the array's memory order."""
    digest = hashlib.sha256(json.dumps(dict(attributes), default=_plain, sort_keys=True).encode())
    digest.update(str(bits.shape).encode())
    digest.update(np.ascontiguousarray(bits.transpose(0, 3, 2, 1)).data)
    return digest.hexdigest()


def index_labels(files: Files, case_path: str) -> str:
    """Write the group that lists a case's annotations, from those that are there now, and return its path."""
    name = f"{case_path}/{LABELS}/{METADATA_NAME}"
    files.update(name, lambda _: labels_index(annotations_of(case_path, files.list(f"{case_path}/{LABELS}"))))
    return name


def annotations_of(case_path: str, names: Iterable[str]) -> list[str]:
    """Return the annotations among the files `names` of a case, sorted: those whose own metadata is there."""
    parts = [name.removeprefix(f"{case_path}/{LABELS}/").split("/") for name in names]
    return sorted(part[0] for part in parts if part[1:] == [METADATA_NAME])


def labels_index(names: Sequence[str]) -> str:
    """Return the text of the file that lists the annotations `names`."""
    body = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome.labels_index(names)}}
    return json.dumps(body, indent=2, sort_keys=True)


@dataclass(frozen=True)
class Sidecar:
    """The note beside a stored thing that says what it consists of, so that a later writer can tell it is sound."""

    content: str
    manifest: Manifest

    def text(self) -> str:
        """Return what the note holds."""
        return json.dumps({"content": self.content, "manifest": json.loads(self.manifest.to_json())}, sort_keys=True)

    @classmethod
    def of(cls, text: str | None) -> Sidecar | None:
        """Return the note of that text; None where there is none or it cannot be read, for then nothing is known."""
        try:
            body = json.loads(text or "")
            return cls(str(body["content"]), Manifest.from_json(json.dumps(body["manifest"])))
        except (ValueError, KeyError, TypeError):
            return None


def note_path(case_path: str, annotation: str | None) -> str:
    """Return the path of the note beside a case's folder: on the case, or on an annotation added to it."""
    return f"{case_path.removesuffix(SUFFIX)}{'' if annotation is None else f'.{annotation}'}{NOTE}"


@dataclass(frozen=True)
class _Thing:
    """What is stored under one note: a case (annotation None), or an annotation that is added to one."""

    case_path: str
    annotation: str | None
    content: str

    @property
    def prefix(self) -> str:
        return "" if self.annotation is None else f"{LABELS}/{self.annotation}/"

    @property
    def note(self) -> str:
        return note_path(self.case_path, self.annotation)

    def store(self, files: Files, write: Callable[[Path], Manifest]) -> tuple[Manifest, bool]:
        """Return the manifest of the thing, and whether it had to be written because no sound one was there.

        write: puts the thing's files into an empty folder. A sound thing is left as it is, but made young, so that no
        garbage collection takes it before it is committed.
        """
        home = self.case_path.rsplit("/", 1)[0]
        with files.writing(home):
            text = self._noted(files)
            earlier = Sidecar.of(text)
            self._refuse_other(files, earlier)
            sound = (
                earlier is not None
                and earlier.content == self.content
                and not find_damage("", files, self.case_path, earlier.manifest, read_data=files.is_local)
            )
            if earlier is not None and sound and files.is_local:
                files.update(self.note, lambda _: earlier.text())
                self._index(files)
                return earlier.manifest, False
            with files.staged(self.case_path, Path(self.note.removesuffix(NOTE)).name) as partial:
                manifest = write(partial)

                def put() -> list[str]:
                    files.update(self.note, lambda now: self._claimed(now, text, Sidecar(self.content, manifest)))
                    files.publish(partial, self.case_path, manifest, self.prefix)
                    return [self.note, *(f"{self.case_path}/{file}" for file in manifest.files), *self._index(files)]

                files.settle(home, put)
        return manifest, not sound

    def _noted(self, files: Files) -> str | None:
        try:
            return files.read(self.note).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _refuse_other(self, files: Files, earlier: Sidecar | None) -> None:
        """Raise AnnotationExists where the annotation's name is taken by other content."""
        if self.annotation is None or (earlier is not None and earlier.content == self.content):
            return
        there = files.list(f"{self.case_path}/{LABELS}/{self.annotation}")
        if earlier is None:
            if there:
                raise AnnotationExists(
                    f"{self.case_path}: annotation {self.annotation!r} came with the case; give a fresh name"
                )
            return
        # Without a lock, an unfinished one may be in the hands of another writer; after an hour it is what one left.
        taken = bool(there) if files.is_local else f"{self.case_path}/{self.prefix}{METADATA_NAME}" in there
        if not taken and not files.is_local:
            claim = files.list(self.note.rsplit("/", 1)[0]).get(self.note)
            taken = claim is not None and datetime.now(UTC) - claim.modified < timedelta(hours=1)
        if taken:
            raise self._other(earlier)

    def _claimed(self, now: str | None, before: str | None, note: Sidecar) -> str:
        """Return the text of the note; AnnotationExists where another writer noted other content since `before`."""
        other = Sidecar.of(now)
        if self.annotation is not None and now != before and other is not None and other.content != self.content:
            raise self._other(other)
        return note.text()

    def _other(self, other: Sidecar) -> AnnotationExists:
        return AnnotationExists(
            f"{self.case_path}: annotation {self.annotation!r} holds content {other.content[:12]}, expected "
            f"{self.content[:12]}; give the new one a fresh name"
        )

    def _index(self, files: Files) -> list[str]:
        """Bring the case's list of annotations up to date, if it has any; return the path of what was written."""
        if self.annotation is None and not files.list(f"{self.case_path}/{LABELS}"):
            return []
        return [index_labels(files, self.case_path)]


def store_case(
    files: Files,
    dataset: str,
    native_id: str,
    ingest_key: str,
    image: Volume,
    geometry: Mapping[str, Any],
    labels: Mapping[str, Bits],
) -> StoredCase:
    """Write one case under its content-addressed name; see `Lake.write_case`."""
    name = keys.case_id(dataset, native_id)
    image = image.with_array(shards.in_memory(image.array, name))
    check_image(image, name)
    labels = {
        annotation: check_bits(bits, image.shape, f"{name}: {keys.check_name('annotation', annotation)}")
        for annotation, bits in labels.items()
    }
    path = f"{VOLUMES}/{dataset}/{native_id}/{ingest_key[: keys.KEY_PREFIX]}{SUFFIX}"
    content = json.dumps({"ingest_key": ingest_key, "annotations": sorted(labels)}, sort_keys=True)
    own = {
        "case_id": name,
        "ingest_key": ingest_key,
        "steps": [json.loads(step.as_json()) for step in image.steps],
        "original": dict(geometry),
    }

    def write(folder: Path) -> Manifest:
        with layout.written_together() as threads:
            jobs = [threads.submit(write_image, folder, image, own)]
            for annotation, bits in labels.items():
                place = folder / LABELS / annotation
                jobs.append(
                    threads.submit(write_bits, place, annotation, bits, image.affine, {"annotation": annotation})
                )
            for job in jobs:
                job.result()
        if labels:
            (folder / LABELS / METADATA_NAME).write_text(labels_index(list(labels)), encoding="utf-8")
        return build_manifest(folder, leave_out=(f"{LABELS}/{METADATA_NAME}",))

    manifest, created = _Thing(path, None, content).store(files, write)
    return StoredCase(path, manifest, created)


def store_annotation(
    files: Files, case_path: str, annotation: str, bits: Bits, attributes: Mapping[str, Any], affine: Affine
) -> Manifest:
    """Write one annotation beside those a case has; see `Lake.write_annotation`."""

    def write(folder: Path) -> Manifest:
        with layout.written_together():
            write_bits(folder, annotation, bits, affine, {"annotation": annotation, **attributes})
        return build_manifest(folder, prefix=f"{LABELS}/{annotation}/")

    return _Thing(case_path, annotation, bits_digest(bits, attributes)).store(files, write)[0]
