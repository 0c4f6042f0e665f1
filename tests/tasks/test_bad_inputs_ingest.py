"""Every reading row of the table of bad inputs, from a folder on disk to what lake and tables hold afterwards.

One small scan (`body`) is written as a BTCV folder (NIfTI pairs) or as a folder of one's own (DICOM, single files),
spoilt in one way, and ingested. A refused case must leave one quarantine row that says what the table demands and
nothing else; a repaired one must carry the repair with it; a flagged one its flag. All cases share one workspace.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from imaging.dicom_write import write_series
from imaging.nifti import write_nifti
from imaging.volume import Affine, Volume
from tasks.ingest import list_source
from tasks.ingest_case import CaseOutcome, ingest_case
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

SHAPE = (24, 20, 16)
SPACING_MM = (7.0, 8.0, 6.0)
AFFINE = np.array([[7.0, 0, 0, -80], [0, 8.0, 0, -75], [0, 0, 6.0, -40], [0, 0, 0, 1]])
SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, LIVER = 1, 2, 3, 6
BOXES = {
    LIVER: (slice(13, 20), slice(8, 15), slice(8, 14)),
    RIGHT_KIDNEY: (slice(14, 17), slice(5, 8), slice(3, 7)),
    LEFT_KIDNEY: (slice(6, 9), slice(5, 8), slice(3, 7)),
    SPLEEN: (slice(4, 7), slice(8, 12), slice(9, 13)),
}
HU = {LIVER: 60, RIGHT_KIDNEY: 110, LEFT_KIDNEY: 110, SPLEEN: 80}
NAME = "Mustermann^Erika"


def body(seed: int) -> tuple[Volume, Volume]:
    """Return a scan (HU, int16) and its BTCV label; x grows to the right; `seed` makes the scan one of its own."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:21, 3:17] = -90
    hu[11:13, 4:7] = 450
    label = np.zeros(SHAPE, np.uint8)
    for value, box in BOXES.items():
        hu[box], label[box] = HU[value], value
    hu += np.random.default_rng(seed).integers(-9, 10, SHAPE, dtype=np.int16)
    return Volume(hu, AFFINE), Volume(label, AFFINE)


@dataclass
class Case:
    """A folder under construction: one scan, its label, and where they lie."""

    root: Path
    native_id: str
    image: Volume
    label: Volume
    card: str = "btcv"
    cohort: str | None = None

    @property
    def image_path(self) -> Path:
        """The image's place in a BTCV folder."""
        return self._in("img", "img")

    @property
    def label_path(self) -> Path:
        """The label's place in a BTCV folder."""
        return self._in("label", "label")

    def _in(self, folder: str, name: str) -> Path:
        path = self.root / "RawData" / "Training" / folder / f"{name}{self.native_id}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, image: Volume | None = None, label: Volume | None = None) -> None:
        """Write image and label as BTCV ships them."""
        write_nifti(image or self.image, self.image_path)
        write_nifti(label or self.label, self.label_path)

    def write_dicom(self, image: Volume | None = None, **options: Any) -> list[Path]:
        """Write the scan as DICOM slices of a cohort of one's own."""
        self.own()
        options = {"patient_id": "4711", **options}
        return write_series(image or self.image, self.root / "series", **options)

    def own(self) -> Path:
        """Make this a folder of one's own, one cohort a case; return the place of a single NIfTI file."""
        self.card, self.cohort = "local", f"cohort_{self.native_id}"
        return self.root / "scan.nii"


@dataclass(frozen=True)
class Row:
    """One way to spoil an input and what must come of it.

    says: texts that found, expected and remedy must hold, in any of them. steps: names of repairs that the case must
    carry. flags: texts that its flags must hold.
    """

    name: str
    spoil: Callable[[Case], None]
    code: str = ""
    says: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    checks: tuple[Callable[[Case, dict[str, Any], Workspace], None], ...] = field(default=())


ROWS: list[Row] = []


def refused(name: str, code: str, *says: str) -> Callable[[Callable[[Case], None]], None]:
    """Add a row whose case must end in quarantine."""
    return lambda spoil: ROWS.append(Row(name, spoil, code, says))


def accepted(
    name: str,
    steps: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    *checks: Callable[[Case, dict[str, Any], Workspace], None],
) -> Callable[[Callable[[Case], None]], None]:
    """Add a row whose case must be ingested, with these repairs and flags."""
    return lambda spoil: ROWS.append(Row(name, spoil, "", (), steps, flags, checks))


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path, at: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def save(array: NDArray[Any], affine: Affine, path: Path, change: Callable[[Any], None] | None = None) -> None:
    """Write a NIfTI with nibabel, its header changed as asked."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    if change is not None:
        change(image)
    nib.save(image, path)


def patch(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of the header inside a .nii.gz."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(raw), mtime=0))


def edit(paths: list[Path], change: Callable[[Any], None]) -> None:
    """Change DICOM files in place."""
    for path in paths:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)


# --- bytes ---------------------------------------------------------------------------------------------------------


@refused("truncated .nii.gz", "truncated", "bytes")
def _(case: Case) -> None:
    case.write()
    cut(case.image_path, 0.6)


@refused("truncated label .nii.gz", "truncated", "bytes")
def _(case: Case) -> None:
    case.write()
    cut(case.label_path, 0.6)


@refused("truncated .nii", "truncated", "10000 bytes", "15712 bytes")
def _(case: Case) -> None:
    path = case.own()
    write_nifti(case.image, path)
    path.write_bytes(path.read_bytes()[:10000])


@refused("flipped byte", "damaged", "CRC")
def _(case: Case) -> None:
    case.write()
    flip(case.image_path, case.image_path.stat().st_size // 2)


@refused("bad gzip trailer", "damaged", "CRC")
def _(case: Case) -> None:
    case.write()
    flip(case.image_path, case.image_path.stat().st_size - 6)


@refused("login page as .nii.gz", "html", "HTML, probably a login page", "log in", "https://www.synapse.org")
def _(case: Case) -> None:
    case.write()
    case.image_path.write_bytes(b"<!DOCTYPE html><html><title>Sign in</title></html>")


@accepted(".nii that is really gzip", ("gunzip_despite_name",))
def _(case: Case) -> None:
    path = case.own()
    write_nifti(case.image, path.with_suffix(".nii.gz"))
    path.with_suffix(".nii.gz").rename(path)


@refused("absurd dimensions", "too_large", "70362301923326 bytes", "at most 8589934592 bytes")
def _(case: Case) -> None:
    case.write()
    patch(case.image_path, 40, struct.pack("<4h", 3, 32767, 32767, 32767))


# --- voxels and geometry -------------------------------------------------------------------------------------------


@refused("NaN", "not_finite", "2 NaN or infinite voxels", "(3, 4, 5)")
def _(case: Case) -> None:
    array = case.image.array.astype(np.float32)
    array[3, 4, 5], array[9, 1, 1] = np.nan, np.inf
    case.write(case.image.with_array(array))


def _shift_sform(image: Any) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 30
    image.set_sform(moved, 1)


@refused("sform against qform", "sform_qform", "-50.0", "-80.0", "affine_from")
def _(case: Case) -> None:
    case.write()
    save(case.image.array, AFFINE, case.image_path, _shift_sform)


@refused("zero spacing", "affine", "spacing 0 along axis Y")
def _(case: Case) -> None:
    case.write()
    patch(case.image_path, 84, struct.pack("<f", 0.0))
    patch(case.image_path, 254, struct.pack("<h", 0))


@refused("singular affine", "affine", "determinant 0")
def _(case: Case) -> None:
    case.write()
    patch(case.image_path, 252, struct.pack("<h", 0))
    patch(case.image_path, 280, struct.pack("<8f", 7, 7, 0, -80, 0, 0, 0, -75))


@refused("NaN affine", "affine", "nan")
def _(case: Case) -> None:
    case.write()
    patch(case.image_path, 252, struct.pack("<h", 0))
    patch(case.image_path, 280, struct.pack("<f", float("nan")))


def _kidneys_in_place(case: Case, row: dict[str, Any], workspace: Workspace) -> None:
    """World points hold: the centroids in the table are where the file's own affine puts them."""
    labels = workspace.tables.labels(case_ids=[row["case_id"]])
    for value, name in {RIGHT_KIDNEY: "right_kidney", LEFT_KIDNEY: "left_kidney", LIVER: "liver"}.items():
        expected = case.label.world_mm(np.argwhere(case.label.array == value).mean(axis=0)[None])[0]
        found = labels[labels["class_name"] == name]["centroid_mm"].iloc[0]
        assert np.abs(np.array(found) - expected).max() < 2.0, name


@accepted("sheared affine", ("sheared_affine",), (), _kidneys_in_place)
def _(case: Case) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 1.5
    case.image, case.label = Volume(case.image.array, affine), Volume(case.label.array, affine)
    case.write()


@refused("four axes", "dimensions", "(24, 20, 16, 2)")
def _(case: Case) -> None:
    case.write()
    save(np.stack([case.image.array] * 2, axis=-1), AFFINE, case.image_path)


@accepted("trailing singleton axis", ("drop_singleton_axes",))
def _(case: Case) -> None:
    case.write()
    save(case.image.array[..., None], AFFINE, case.image_path)


@refused("RGB voxels", "voxel_type", "RGB")
def _(case: Case) -> None:
    case.write()
    save(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE, case.image_path)


@refused("complex voxels", "voxel_type", "complex")
def _(case: Case) -> None:
    case.write()
    save(case.image.array.astype(np.complex64), AFFINE, case.image_path)


@refused("values shifted by 1024", "hu_shifted", "values 15 to", "range about -1024..3071")
def _(case: Case) -> None:
    case.write(case.image.with_array(case.image.array + np.int16(1024)))


@refused("wrapped to uint16", "hu_wrapped", "65", "range about -1024..3071")
def _(case: Case) -> None:
    case.write(case.image.with_array(case.image.array.astype(np.uint16)))


@refused("already normalised", "hu_normalised", "a span of 1")
def _(case: Case) -> None:
    array = case.image.array.astype(np.float32)
    case.write(case.image.with_array((array - array.min()) / (array.max() - array.min())))


@refused("constant", "hu_constant", "the constant -1000")
def _(case: Case) -> None:
    case.write(case.image.with_array(np.full(SHAPE, -1000, np.int16)))


# --- labels --------------------------------------------------------------------------------------------------------


@refused("label of another shape", "label_shape", "(24, 20, 15)", "(24, 20, 16)")
def _(case: Case) -> None:
    case.write(label=Volume(case.label.array[:, :, 1:], AFFINE))


@refused("label of another affine", "label_shift", "3.000 mm")
def _(case: Case) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += 3
    case.write(label=Volume(case.label.array, moved))


@accepted("label affine rounded", ("round_grid",))
def _(case: Case) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += 0.004
    case.write(label=Volume(case.label.array, moved))


@refused("undeclared label value", "label_value", "label value 77 in 3 voxels", "6 (liver)", "card")
def _(case: Case) -> None:
    array = case.label.array.copy()
    array[0, 0, :3] = 77
    case.write(label=case.label.with_array(array))


@accepted("float labels 0.9999", ("round_label",))
def _(case: Case) -> None:
    case.write(label=case.label.with_array(case.label.array.astype(np.float32) * np.float32(0.9999)))


@refused("interpolated label", "label_not_integer", "1 voxels (0.0%)", "0.37")
def _(case: Case) -> None:
    array = case.label.array.astype(np.float32)
    array[2, 3, 4] = 0.37
    case.write(label=case.label.with_array(array))


@refused("label mirrored", "mirrored", "right_kidney at x =", "left_kidney at x =", "right > left")
def _(case: Case) -> None:
    case.write(label=case.label.with_array(case.label.array[::-1].copy()))


@refused("label missing", "label_missing", "label*.nii.gz")
def _(case: Case) -> None:
    case.write()
    case.label_path.unlink()


def _all_absent(case: Case, row: dict[str, Any], workspace: Workspace) -> None:
    """An empty label is knowledge: every class annotated, none present."""
    labels = workspace.tables.labels(case_ids=[row["case_id"]])
    assert len(labels) == 13
    assert (labels["voxels"] == 0).all()
    assert (labels["state"] == "annotated").all()


@accepted("label empty", (), ("the label is empty",), _all_absent)
def _(case: Case) -> None:
    case.write(label=case.label.with_array(np.zeros(SHAPE, np.uint8)))


# --- DICOM ---------------------------------------------------------------------------------------------------------


@refused("missing slice", "dicom_missing_slice", "12.000 mm from -10.000 to 2.000", "6.000 mm")
def _(case: Case) -> None:
    case.write_dicom()[6].unlink()


@refused("uneven spacing", "dicom_missing_slice", "7.300 mm", "6.000 mm between all slices")
def _(case: Case) -> None:
    paths = case.write_dicom()

    def lift(data: Any) -> None:
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], float(data.ImagePositionPatient[2]) + 1.3]

    edit(paths[7:8], lift)


@accepted("duplicate slice, identical", ("drop_identical_slices",))
def _(case: Case) -> None:
    paths = case.write_dicom()
    shutil.copy(paths[3], paths[3].with_name("again.dcm"))


@refused("duplicate slice, conflicting", "dicom_conflicting_slices", "file 4 (instance 4)", "file 17 (instance 4)")
def _(case: Case) -> None:
    paths = case.write_dicom()
    twin = Path(shutil.copy(paths[3], paths[3].with_name("again.dcm")))
    edit([twin], lambda data: setattr(data, "PixelData", (data.pixel_array + 1).astype(np.int16).tobytes()))


@accepted("localizer in a series", ("drop_other_orientations",))
def _(case: Case) -> None:
    paths = case.write_dicom()
    scout = Path(shutil.copy(paths[0], paths[0].with_name("scout.dcm")))

    def turn(data: Any) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        data.SOPInstanceUID = "1.2.3.4.5"
        data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    edit([scout], turn)


@refused("two patients in one folder", "two_patients", "2 patients")
def _(case: Case) -> None:
    case.write_dicom()
    write_series(body(99)[0], case.root / "series", patient_id="4712", file_name="other{index}.dcm")


def _highest_is_450(case: Case, row: dict[str, Any], workspace: Workspace) -> None:
    """HU per slice are right: bone is where it was, and nothing is brighter or darker than in the scan."""
    assert abs(row["hu_max"] - int(case.image.array.max())) <= 20
    assert abs(row["hu_min"] - int(case.image.array.min())) <= 20


@accepted("rescale differs per slice", ("rescale_per_slice",), (), _highest_is_450)
def _(case: Case) -> None:
    paths = case.write_dicom()

    def shift(data: Any) -> None:
        data.PixelData = (data.pixel_array + 500).astype(np.int16).tobytes()
        data.RescaleIntercept = float(data.RescaleIntercept) - 500

    edit(paths[::2], shift)


@accepted("padding value", ("clear_padding",), (), _highest_is_450)
def _(case: Case) -> None:
    paths = case.write_dicom()

    def pad(data: Any) -> None:
        pixels = data.pixel_array.copy()
        pixels[:2] = 30000
        data.PixelData = pixels.astype(np.int16).tobytes()
        data.add_new(0x00280120, "SS", 30000)

    edit(paths, pad)


def _spine_in_place(case: Case, row: dict[str, Any], workspace: Workspace) -> None:
    """World points hold: the bright spine lies where the tilted affine puts it."""
    stored = workspace.lake.open_image(row)
    image = Volume(stored.read(), np.array(row["affine"]).reshape(4, 4))
    found = image.world_mm(np.argwhere(image.array > 250).astype(float)).mean(axis=0)
    expected = case.image.world_mm(np.argwhere(case.image.array > 250).astype(float)).mean(axis=0)
    assert np.abs(found - expected).max() < 3.0


@accepted("gantry tilt", ("straighten",), (), _spine_in_place)
def _(case: Case) -> None:
    affine = np.diag([-7.0, -8.0, 6.0, 1.0])
    affine[:3, 3] = (80, 75, -40)
    affine[1, 2] = -1.2
    case.image = Volume(case.image.array[::-1, ::-1].copy(), affine)
    case.write_dicom()


@refused("no rescale", "dicom_tag", "RescaleIntercept")
def _(case: Case) -> None:
    edit(case.write_dicom(), lambda data: delattr(data, "RescaleIntercept"))


@refused("no position", "dicom_tag", "ImagePositionPatient")
def _(case: Case) -> None:
    edit(case.write_dicom(), lambda data: delattr(data, "ImagePositionPatient"))


@refused("wrong modality", "dicom_modality", "MR", "CT")
def _(case: Case) -> None:
    edit(case.write_dicom(), lambda data: setattr(data, "Modality", "MR"))


def _nobody_named(case: Case, row: dict[str, Any], workspace: Workspace) -> None:
    """No trace of the name in the lake, in the tables or in the row; the native id is a pseudonym."""
    assert row["native_id"].startswith("s")
    traces = ("mustermann", "erika", "geheim-7")
    said = json.dumps({key: str(value) for key, value in row.items()}).lower()
    assert not any(trace in said for trace in traces)
    for path in workspace.settings.lake.folder.rglob("*"):
        held = path.read_bytes().lower() if path.is_file() else b""
        assert not any(trace.encode() in held or trace in path.name.lower() for trace in traces), path


@accepted("identifying header, file name and path", (), (), _nobody_named)
def _(case: Case) -> None:
    header = {"InstitutionName": "Klinik Geheim-7", "PatientBirthDate": "19500101"}
    case.own()
    write_series(
        case.image,
        case.root / "Mustermann_Erika",
        patient_id="Geheim-7",
        patient_name=NAME,
        file_name="Mustermann_{index}.dcm",
        header=header,
    )


# --- odd, but valid ------------------------------------------------------------------------------------------------


@accepted("oblique scan", (), (), _kidneys_in_place)
def _(case: Case) -> None:
    angle = np.radians(12)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(SPACING_MM)
    affine[:3, 3] = (-80, -75, -40)
    case.image, case.label = Volume(case.image.array, affine), Volume(case.label.array, affine)
    case.write()


@accepted("single kidney")
def _(case: Case) -> None:
    array = case.label.array.copy()
    array[array == LEFT_KIDNEY] = 0
    case.write(label=case.label.with_array(array))


@accepted("organ of one slice, uint16 label")
def _(case: Case) -> None:
    array = case.label.array.astype(np.uint16)
    array[:, :, :10][array[:, :, :10] == SPLEEN] = 0
    array[:, :, 11:][array[:, :, 11:] == SPLEEN] = 0
    case.write(label=case.label.with_array(array))


@accepted("slices of 0.5 mm")
def _(case: Case) -> None:
    affine = AFFINE.copy()
    affine[2, 2] = 0.5
    case.image, case.label = Volume(case.image.array, affine), Volume(case.label.array, affine)
    case.write()


# --- the test ------------------------------------------------------------------------------------------------------


LABELLED_IDS = [f"{number:04}" for number in [*range(1, 11), *range(21, 41)]]
"""Cases that BTCV has labels for; rows beyond them go to a further workspace."""


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> list[Workspace]:
    count = -(-len(ROWS) // len(LABELLED_IDS))
    spacing = (6.0, 6.0, 6.0)
    return [open_workspace(Settings(workspace=tmp_path_factory.mktemp("ws"), spacing_mm=spacing)) for _ in range(count)]


def ingest(case: Case, workspace: Workspace) -> list[CaseOutcome]:
    """Return what became of everything that lies in the case's folder."""
    listing = list_source(case.card, case.root, workspace.settings, cohort=case.cohort)
    return [*listing.refused, *(ingest_case(request, workspace.settings) for request in listing.requests)]


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row.name for row in ROWS])
def test_a_bad_input_meets_its_verdict(
    number: int, tmp_path: Path, workspaces: list[Workspace], caplog: pytest.LogCaptureFixture
) -> None:
    row = ROWS[number]
    image, label = body(number)
    block, place = divmod(number, len(LABELLED_IDS))
    workspace, native_id = workspaces[block], LABELLED_IDS[place]
    case = Case(tmp_path / "source", native_id, image, label)
    case.root.mkdir()
    row.spoil(case)
    stored_before = set((workspace.settings.lake.folder / "volumes").rglob("*.zarr"))
    outcomes = ingest(case, workspace)
    dataset = case.cohort or case.card
    cases = workspace.tables.cases(dataset=dataset)
    mine = cases[cases["native_id"] == native_id] if case.cohort is None else cases
    refusals = workspace.tables.quarantined(dataset)
    assert all(command.startswith(f"ctfactory ingest {case.card} --source ") for command in refusals["retry"])
    refusals = refusals[refusals["native_id"] == native_id] if case.cohort is None else refusals
    assert "mustermann" not in caplog.text.lower()
    if row.code:
        assert [outcome.outcome for outcome in outcomes if outcome.outcome != "quarantined"] == []
        assert len(mine) == 0
        assert set((workspace.settings.lake.folder / "volumes").rglob("*.zarr")) == stored_before
        assert set(refusals["code"]) == {row.code}
        told = " | ".join(refusals[["where", "found", "expected", "remedy"]].iloc[0])
        assert all(text in told for text in row.says), told
        assert str(tmp_path) not in told
        assert all(refusals[["where", "found", "expected", "remedy"]].iloc[0].str.len() > 0)
        return
    assert [outcome.outcome for outcome in outcomes] == ["ingested"], outcomes
    assert len(refusals) == 0
    (found,) = mine.to_dict("records")
    steps = {json.loads(step)["step"] for step in found["steps"]}
    assert set(row.steps) <= steps, steps
    assert all(any(text in flag for flag in found["flags"]) for text in row.flags), found["flags"]
    for check in row.checks:
        check(case, found, workspace)


def test_two_series_in_a_folder_are_two_cases(tmp_path: Path, workspaces: list[Workspace]) -> None:
    case = Case(tmp_path, "two_series", *body(200))
    case.write_dicom()
    write_series(body(201)[0], case.root / "series", patient_id="4711", file_name="second{index}.dcm")
    assert [outcome.outcome for outcome in ingest(case, workspaces[0])] == ["ingested", "ingested"]


def test_litter_in_the_folder_is_counted_and_no_case(tmp_path: Path, workspaces: list[Workspace]) -> None:
    case = Case(tmp_path, "0001", *body(202))
    case.write()
    case.image_path.with_name("._img0001.nii.gz").write_bytes(b"litter")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "img0002.nii.gz").write_bytes(b"litter")
    (tmp_path / ".DS_Store").write_bytes(b"litter")
    listing = list_source("btcv", tmp_path, workspaces[0].settings)
    assert (len(listing.requests), len(listing.refused), listing.skipped_files) == (1, 0, 3)


def test_the_same_scan_in_two_data_sets_is_flagged_and_grouped(tmp_path: Path, workspaces: list[Workspace]) -> None:
    shipped = Case(tmp_path / "btcv", "0040", *body(203))
    shipped.write()
    own = Case(tmp_path / "own", "twin", shipped.image, shipped.label)
    own.root.mkdir()
    write_nifti(own.image, own.own())
    assert [one.outcome for one in (*ingest(shipped, workspaces[-1]), *ingest(own, workspaces[-1]))] == ["ingested"] * 2
    tables = workspaces[-1].tables
    (twin,) = tables.cases(dataset="cohort_twin").to_dict("records")
    assert "same_scan: btcv/0040 (how: exact)" in list(twin["flags"])
    assert set(tables.group_members(twin["split_group"])) == {"btcv/0040", twin["case_id"]}
