"""Writing cases and annotations: whole shards, one writer, visible all at once or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog import keys, layout, ome, publish
from catalog.errors import AnnotationExists
from catalog.manifest import METADATA_NAME, Manifest, build_manifest, find_damage
from imaging.volume import Affine, Volume

LABELS = "labels"
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


def check_bits(bits: Bits, shape: tuple[int, int, int], where: str) -> None:
    """Raise ValueError unless `bits` are (W, X, Y, Z) uint32 words on a grid of `shape`."""
    if bits.dtype != np.uint32 or bits.ndim != 4 or bits.shape[0] == 0 or bits.shape[1:] != shape:
        raise ValueError(
            f"{where}: bits are {bits.dtype} {bits.shape}, expected uint32 (words, {', '.join(map(str, shape))}); "
            "put the label on the image's grid"
        )
    if bits.max() == layout.BITS_FILL:
        raise ValueError(f"{where}: a voxel lies in all 32 classes of a word, which stands for missing data")


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


def index_labels(case_folder: Path) -> None:
    """Write the group that lists the case's annotations, from the folders that are there."""
    labels = case_folder / LABELS
    names = sorted(path.name for path in labels.iterdir() if (path / METADATA_NAME).is_file())
    body = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome.labels_index(names)}}
    publish.write_durably(labels / METADATA_NAME, json.dumps(body, indent=2, sort_keys=True))


@dataclass(frozen=True)
class Sidecar:
    """The note beside a stored thing that says what it consists of, so that a later writer can tell it is sound."""

    content: str
    manifest: Manifest

    def write(self, path: Path) -> None:
        """Write the note durably."""
        body = {"content": self.content, "manifest": json.loads(self.manifest.to_json())}
        publish.write_durably(path, json.dumps(body, sort_keys=True))

    @classmethod
    def read(cls, path: Path) -> Sidecar | None:
        """Return the note in `path`; None where there is none or it cannot be read, for then nothing is known."""
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(body["content"]), Manifest.from_json(json.dumps(body["manifest"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_sound(self, case_folder: Path) -> bool:
        """Whether every file is there with the bytes noted."""
        return not find_damage("", case_folder, "", self.manifest, read_data=True)


def store_case(
    root: Path,
    dataset: str,
    native_id: str,
    ingest_key: str,
    image: Volume,
    geometry: Mapping[str, Any],
    labels: Mapping[str, Bits],
) -> StoredCase:
    """Write one case under its content-addressed name; see `Lake.write_case`."""
    name = keys.case_id(dataset, native_id)
    check_image(image, name)
    for annotation, bits in labels.items():
        check_bits(bits, image.shape, f"{name}: {keys.check_name('annotation', annotation)}")
    short = ingest_key[: keys.KEY_PREFIX]
    home = root / "volumes" / dataset / native_id
    final = home / f"{short}.zarr"
    path = final.relative_to(root).as_posix()
    sidecar = home / f"{short}.manifest.json"
    content = json.dumps({"ingest_key": ingest_key, "annotations": sorted(labels)}, sort_keys=True)
    with publish.exclusive(home):
        earlier = Sidecar.read(sidecar)
        if earlier is not None and earlier.content == content and earlier.is_sound(final):
            return StoredCase(path, earlier.manifest, created=False)
        with publish.written_aside(final, short) as partial:
            own = {
                "case_id": name,
                "ingest_key": ingest_key,
                "steps": [json.loads(step.as_json()) for step in image.steps],
                "original": dict(geometry),
            }
            with layout.written_together() as threads:
                jobs = [threads.submit(write_image, partial, image, own)]
                for annotation, bits in labels.items():
                    place = partial / LABELS / annotation
                    jobs.append(
                        threads.submit(write_bits, place, annotation, bits, image.affine, {"annotation": annotation})
                    )
                for job in jobs:
                    job.result()
            if labels:
                index_labels(partial)
            manifest = build_manifest(partial, leave_out=(f"{LABELS}/{METADATA_NAME}",))
            Sidecar(content, manifest).write(sidecar)
            publish.publish(partial, final, manifest)
            if (final / LABELS).is_dir():
                index_labels(final)
    return StoredCase(path, manifest, created=True)


def store_annotation(
    root: Path, case_path: str, annotation: str, bits: Bits, attributes: Mapping[str, Any], affine: Affine
) -> Manifest:
    """Write one annotation beside those a case has; see `Lake.write_annotation`."""
    final = root / case_path
    home, short = final.parent, final.name.removesuffix(".zarr")
    prefix = f"{LABELS}/{annotation}/"
    sidecar = home / f"{short}.{annotation}.manifest.json"
    content = bits_digest(bits, attributes)
    with publish.exclusive(home):
        earlier = Sidecar.read(sidecar)
        if earlier is not None and (final / prefix).is_dir():
            if earlier.content != content:
                raise AnnotationExists(
                    f"{case_path}: annotation {annotation!r} holds content {earlier.content[:12]}, expected "
                    f"{content[:12]}; give the new one a fresh name"
                )
            if earlier.is_sound(final):
                index_labels(final)
                return earlier.manifest
        elif earlier is None and (final / prefix).is_dir():
            raise AnnotationExists(f"{case_path}: annotation {annotation!r} came with the case; give a fresh name")
        with publish.written_aside(final, f"{short}.{annotation}") as partial:
            with layout.written_together():
                write_bits(partial, annotation, bits, affine, {"annotation": annotation, **attributes})
            manifest = build_manifest(partial, prefix=prefix)
            Sidecar(content, manifest).write(sidecar)
            publish.publish(partial, final / prefix, manifest, prefix)
            index_labels(final)
    return manifest
