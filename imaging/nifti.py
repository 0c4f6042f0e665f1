"""NIfTI files read to the last byte with every doubt refused, and written so that no half file is ever seen."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from imaging.errors import BadInput
from imaging.label_table import EXTENSION_CODE, LabelEntry, caret_label_table
from imaging.nifti_bytes import VoxelStream, open_stream
from imaging.resample import shear_degrees
from imaging.volume import Affine, Step, Volume

AffineChoice = Literal["agree", "sform", "qform"]
AGREE_MM = 0.5
"""sform and qform may differ this much at a corner: a half turn kept as a float32 quaternion is off by up to 0.3 mm."""
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
WRITABLE = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@dataclass(frozen=True)
class _Header:
    """What the header says: its parsed fields, spatial shape, voxel dtype as stored, first byte of the voxels."""

    fields: Any
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    steps: tuple[Step, ...]


def read_nifti(
    path: Path, *, affine_from: AffineChoice = "agree", max_bytes: int = 8 * 2**30, where: str | None = None
) -> Volume:
    """Return the volume of a .nii or .nii.gz, array axes in the order on disk, affine in RAS mm.

    Integers stay integers (also after a whole-numbered scl_slope and scl_inter), other scaled values are float32.
    affine_from: "agree" wants sform and qform to say the same; "sform" or "qform" chooses one.
    max_bytes: largest voxel array accepted, checked before any memory is taken.
    where: what errors call the file instead of its name, for files whose name may tell who the patient is.
    Raises BadInput for whatever cannot be trusted; FileNotFoundError when there is no such file.
    """
    place = where if where is not None else path.name
    with open_stream(path, place) as stream:
        header = _read_header(stream, place)
        demand = math.prod(header.shape) * header.dtype.itemsize
        stream.check_demand(demand, header.offset, max_bytes, header.shape)
        stored, trailing = stream.read_voxels(header.offset, demand)
        steps = [*stream.steps, *header.steps]
    if trailing:
        steps.append(Step("ignore_trailing_bytes", {"bytes": trailing}))
    affine = _choose_affine(header, affine_from, place, steps)
    array = np.frombuffer(stored, dtype=header.dtype).reshape(header.shape, order="F")
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    check_finite(array, place)
    return Volume(_scale(array, header.fields, place, steps), affine, tuple(steps))


def write_nifti(volume: Volume, path: Path, labels: Sequence[LabelEntry] = ()) -> None:
    """Write a volume as .nii or .nii.gz with its dtype as given (bool as uint8), aside first and then moved into place.

    labels: names and colours of the values, kept in the header as a label table (an extension; intent LABEL).
    sform and qform both hold the affine; qform is left out (code 0) when the affine is sheared, which it cannot hold.
    The same volume gives the same bytes. Raises ValueError for a dtype NIfTI readers do not share.
    """
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    if array.dtype.name not in WRITABLE:
        raise ValueError(f"{path.name}: cannot write {array.dtype} as NIfTI, expected one of {', '.join(WRITABLE)}")
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype.newbyteorder("<"))
    header.set_data_shape(array.shape)
    header.set_sform(volume.affine, code=1)
    straight = shear_degrees(volume.affine) < 0.01
    header.set_qform(volume.affine, code=1 if straight else 0, strip_shears=True)
    header.set_xyzt_units("mm")
    extension = _label_extension(labels)
    header["vox_offset"] = 348 + len(extension)
    if labels:
        header.set_intent("label")
    header["magic"] = b"n+1"
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as raw:
            if path.name.endswith(".gz"):
                # no name and no time in the gzip header: equal volumes give equal files
                with igzip.IGzipFile(filename="", mode="wb", fileobj=raw, compresslevel=2, mtime=0) as packed:
                    _write_parts(packed, header, extension, array)
            else:
                _write_parts(raw, header, extension, array)
            raw.flush()
            os.fsync(raw.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _label_extension(labels: Sequence[LabelEntry]) -> bytes:
    """Return what follows the header: the flag of extensions, and the label table as one of a multiple of 16 bytes."""
    if not labels:
        return b"\0\0\0\0"
    xml = caret_label_table(labels)
    size = -(-(len(xml) + 8) // 16) * 16
    return b"\1\0\0\0" + struct.pack("<ii", size, EXTENSION_CODE) + xml.ljust(size - 8, b"\0")


def _write_parts(target: Any, header: Any, extension: bytes, array: NDArray[Any]) -> None:
    target.write(header.binaryblock)
    target.write(extension)
    # F order on disk, slice by slice so that a transposed volume is not copied whole
    for k in range(array.shape[2]):
        target.write(array[:, :, k].astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F"))


def _read_header(stream: VoxelStream, where: str) -> _Header:
    start = stream.read_start(540)
    sizes = {int.from_bytes(start[:4], order): order for order in ("little", "big")}
    if 348 in sizes and len(start) >= 348:
        fields: Any = nib.Nifti1Header(start[:348], check=False)
    elif 540 in sizes and len(start) >= 540:
        fields = nib.Nifti2Header(start[:540], check=False)
    else:
        raise BadInput(
            "nifti_header",
            where,
            f"{len(start)} readable bytes starting {start[:8].hex()}",
            "a NIfTI header of 348 or 540 bytes",
            "check that this is a NIfTI file and fetch it again",
        )
    magic = bytes(fields["magic"])[:3]
    if magic not in (b"n+1", b"n+2"):
        raise BadInput(
            "nifti_header", where, f"magic {magic!r}", "'n+1' or 'n+2' (header and voxels in one file)",
            "convert the .hdr/.img pair to one .nii.gz",
        )  # fmt: skip
    shape, steps = _spatial_shape(fields, where)
    offset = float(fields["vox_offset"])
    least = 352 if magic == b"n+1" else 544
    if not math.isfinite(offset) or offset > 2**28 or (0 < offset < least):
        raise BadInput(
            "nifti_header", where, f"vox_offset {offset:g}", f"{least} or a little more", "repair the file's header"
        )
    return _Header(fields, shape, _voxel_dtype(fields, where), int(offset) or least, steps)


def _spatial_shape(fields: Any, where: str) -> tuple[tuple[int, int, int], tuple[Step, ...]]:
    count = int(fields["dim"][0])
    sizes = [int(n) for n in fields["dim"][1 : max(count, 0) + 1]]
    if not 3 <= count <= 7 or min(sizes) < 1 or max(sizes[3:], default=1) > 1:
        raise BadInput(
            "dimensions",
            where,
            f"{count} dimensions of sizes {tuple(sizes)}",
            "three axes (X, Y, Z), further ones of size 1 only",
            "give one 3-D image per file (split time points or channels)",
        )
    steps = (Step("drop_singleton_axes", {"shape_before": sizes}),) if count > 3 else ()
    return (sizes[0], sizes[1], sizes[2]), steps


def _voxel_dtype(fields: Any, where: str) -> np.dtype[Any]:
    code = int(fields["datatype"])
    names = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
    if code not in names:
        known = nib.nifti1.data_type_codes
        found = known.label[code] if code in known.code else "unknown"
        raise BadInput(
            "voxel_type",
            where,
            f"datatype {code} ({found})",
            "one real number a voxel (8 to 64 bit integer, float32 or float64)",
            "convert RGB or complex voxels to one grey value or label",
        )
    return np.dtype(names[code]).newbyteorder(fields.endianness)


def _choose_affine(header: _Header, affine_from: AffineChoice, where: str, steps: list[Step]) -> Affine:
    fields = header.fields
    codes = {"sform": int(fields["sform_code"]), "qform": int(fields["qform_code"])}
    wanted = [form for form in codes if codes[form] > 0 and affine_from in ("agree", form)]
    if not wanted:
        raise BadInput(
            "affine",
            where,
            f"sform_code {codes['sform']}, qform_code {codes['qform']} with affine_from '{affine_from}'",
            "a code above 0 for the affine to use",
            "without it left and right are unknown: set the header from the original scan",
        )
    found = {form: _form(fields, form, where) for form in wanted}
    chosen = found[wanted[0]]
    if len(found) == 2:
        _check_forms_agree(found["sform"], found["qform"], header.shape, where)
    elif affine_from != "agree":
        steps.append(Step("choose_affine", {"affine_from": affine_from}))
    unit = int(fields["xyzt_units"]) & 7
    if MM_PER_UNIT.get(unit, 1.0) != 1.0:
        chosen = np.diag([MM_PER_UNIT[unit]] * 3 + [1.0]) @ chosen
        steps.append(Step("convert_units", {"mm_per_unit": MM_PER_UNIT[unit]}))
    degrees = shear_degrees(chosen)
    if degrees > 0.01:
        # kept as it is: resampling goes through the full affine, so world points hold
        steps.append(Step("sheared_affine", {"degrees": round(degrees, 4)}))
    return chosen


def _form(fields: Any, form: str, where: str) -> Affine:
    if form == "qform":
        pixdim = np.asarray(fields["pixdim"], dtype=np.float64)
        check_lengths(np.abs(pixdim[1:4]), "pixdim", where)
        quaternion = [float(fields[name]) for name in ("quatern_b", "quatern_c", "quatern_d")]
        shift = [float(fields[name]) for name in ("qoffset_x", "qoffset_y", "qoffset_z")]
        if not np.isfinite([*quaternion, *shift]).all() or math.hypot(*quaternion) > 1.0 + 1e-5:
            raise BadInput(
                "affine", where, f"qform quaternion {quaternion}, offset {shift}",
                "finite numbers, quaternion no longer than 1", "repair the header, or choose affine_from: sform",
            )  # fmt: skip
        return np.asarray(fields.get_qform(), dtype=np.float64)
    affine = np.asarray(fields.get_sform(), dtype=np.float64)
    if not np.isfinite(affine).all():
        raise BadInput("affine", where, f"sform {affine.tolist()}", "finite numbers", "repair the file's header")
    check_lengths(np.linalg.norm(affine[:3, :3], axis=0), "sform column length", where)
    determinant = float(np.linalg.det(affine[:3, :3]))
    if abs(determinant) < 1e-9:
        raise BadInput(
            "affine", where, f"sform determinant {determinant:g}", "other than 0 (voxel volume in mm3)",
            "repair the header, or choose affine_from: qform",
        )  # fmt: skip
    return affine


def check_lengths(lengths: NDArray[np.float64], name: str, where: str) -> None:
    """Raise BadInput unless every axis has a finite length above 0, (3,) in mm, naming the axis and the field."""
    for axis, length in enumerate(lengths):
        if not np.isfinite(length) or length <= 0:
            raise BadInput(
                "affine",
                where,
                f"spacing {length:g} along axis {'XYZ'[axis]} ({name})",
                "a positive number of mm",
                "repair the file's header",
            )


def _check_forms_agree(sform: Affine, qform: Affine, shape: tuple[int, int, int], where: str) -> None:
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(shape) - 1
    # one more voxel in every direction: a single slice must not hide a flipped axis
    corners = np.vstack([corners, [[shape[0], 0, 0, 1], [0, shape[1], 0, 1], [0, 0, shape[2], 1]]])
    apart = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    if apart > AGREE_MM:
        raise BadInput(
            "sform_qform",
            where,
            f"sform {_rows(sform)} and qform {_rows(qform)}, {apart:.2f} mm apart at a corner",
            f"the same place within {AGREE_MM} mm",
            "find out which is right and set affine_from: sform or affine_from: qform in the data set's card",
        )


def _rows(affine: Affine) -> str:
    return str(np.round(affine[:3], 4).tolist())


def check_finite(array: NDArray[Any], where: str) -> None:
    """Raise BadInput for NaN or infinite voxels, with their count and the first index."""
    if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
        return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = tuple(int(i[0]) for i in np.nonzero(bad))
        raise BadInput(
            "not_finite",
            where,
            f"{count} NaN or infinite voxels, the first at index {first}",
            "finite values",
            "export the scan again, or fill them from the original",
        )


def _scale(array: NDArray[Any], fields: Any, where: str, steps: list[Step]) -> NDArray[Any]:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    # the standard: slope 0 means that the values are not scaled; some writers say it with NaN
    if slope == 0 or math.isnan(slope) or (slope == 1 and inter == 0):
        return array
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise BadInput(
            "scaling", where, f"scl_slope {slope}, scl_inter {inter}", "finite numbers", "repair the file's header"
        )
    steps.append(Step("scale", {"slope": slope, "inter": inter}))
    if array.dtype.kind in "iu" and slope.is_integer() and inter.is_integer():
        ends = [int(array.min()) * int(slope) + int(inter), int(array.max()) * int(slope) + int(inter)]
        for name in ("int16", "int32", "int64"):
            if np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max:
                return (array.astype(np.int64) * int(slope) + int(inter)).astype(name)
    scaled: NDArray[Any] = (array * slope + inter).astype(np.float32)
    check_finite(scaled, where)
    return scaled
