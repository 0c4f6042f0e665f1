"""What lies beside the labelled cases in a set's real archive: unlabelled scans, known faulty cases, MRI, litter.

Each function writes under the raw root after the cases. Nothing here may become a labelled case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.miniatures.case_scans import Spacing, plain_scan, scan_of
from datasets_registry.miniatures.dicom_sets import write_pancreas_case
from datasets_registry.miniatures.mask_sets import write_mask_case
from datasets_registry.miniatures.native_label import native_label
from datasets_registry.miniatures.nifti_sets import APPLE_DOUBLE, image_name
from datasets_registry.miniatures.scan_changes import Scan
from imaging.dicom_write import write_series
from imaging.nifti import write_nifti
from imaging.volume import Volume


@dataclass(frozen=True)
class Beside:
    """Where and how extras are written: raw root, card, case numbers of the miniature, seed and grid."""

    folder: Path
    card: Card
    numbers: Sequence[int]
    seed: int
    spacing_mm: Spacing | None

    def scan(self, name: str, axes: str | None = None) -> Scan:
        """Return a scan of a patient who is no case of the set."""
        return plain_scan(self.card, name, self.seed, self.spacing_mm, axes)

    def put(self, path: str, volume: Volume) -> None:
        """Write a NIfTI file below the raw root."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(volume, self.folder / path)

    def litter(self, path: str) -> None:
        """Write a file that an operating system left behind."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(APPLE_DOUBLE)


def write_extras(folder: Path, card: Card, numbers: Sequence[int], seed: int, spacing_mm: Spacing | None) -> None:
    """Write what the real archive holds beside the labelled cases `numbers`; nothing for sets without such files."""
    beside = Beside(folder, card, numbers, seed, spacing_mm)
    if card.layout.reader == "msd":
        _decathlon_test(beside)
    elif card.id in EXTRAS:
        EXTRAS[card.id](beside)


def _abdomenct_1k(beside: Beside) -> None:
    native_id, path = image_name(beside.card, 10)
    beside.put(path.as_posix(), beside.scan(native_id).image)
    beside.litter("Mask/.DS_Store")


def _amos(beside: Beside) -> None:
    """MRI scan 507 with its label, the files macOS adds, and dataset.json."""
    scan = beside.scan("0507")
    tissue = np.clip(scan.image.array.astype(np.int32) + 150, 0, None)
    signal = scan.image.with_array((tissue * 2).astype(np.int16))
    beside.put("amos22/imagesTr/amos_0507.nii.gz", signal)
    beside.put("amos22/labelsTr/amos_0507.nii.gz", scan.image.with_array(native_label(scan.bits, beside.card)))
    for path in ("imagesTr/._amos_0507.nii.gz", "imagesTr/._amos_0001.nii.gz", "._dataset.json"):
        beside.litter(f"__MACOSX/amos22/{path}")
    labels = {"0": "background", **{str(value): meaning.name for value, meaning in beside.card.labels.items()}}
    described = {"name": "AMOS", "modality": {"0": "CT"}, "labels": labels}
    (beside.folder / "amos22" / "dataset.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def _btcv(beside: Beside) -> None:
    if "0062" in beside.card.unlabelled_case_ids:
        beside.put("RawData/Testing/img/img0062.nii.gz", beside.scan("0062").image)


def _chaos(beside: Beside) -> None:
    """A scan of the test part, whose labels were never published."""
    image = beside.scan("test 3").image
    place = beside.folder / "Test_Sets" / "CT" / "3" / "DICOM_anon"
    write_series(image, place, patient_id="CHAOS-3", file_name="i{index:04d},0000b.dcm")


def _decathlon_test(beside: Beside) -> None:
    """One image of the test part, with the file macOS adds."""
    path = image_name(beside.card, beside.numbers[0])[1]
    name = path.name.replace(str(beside.numbers[0]).zfill(len(path.name.split("_")[1].split(".")[0])), "900")
    test = path.parent.parent / "imagesTs"
    beside.put((test / name).as_posix(), beside.scan("test 900").image)
    beside.litter((test / f"._{name}").as_posix())


def _flare22(beside: Beside) -> None:
    pool = "Training/FLARE22_UnlabeledCase1-1000"
    beside.put(f"{pool}/Case_00010_0000.nii.gz", beside.scan("Case_00010").image)
    beside.put("Validation/FLARETs_0001_0000.nii.gz", beside.scan("FLARETs_0001").image)


def _flare23(beside: Beside) -> None:
    beside.put("unlabeledTr1800/FLARE23_2201_0000.nii.gz", beside.scan("2201").image)


def _kits(beside: Beside) -> None:
    """The annotators' single instances, and the table of patients."""
    for number in beside.numbers:
        scan = scan_of(beside.card, number, beside.seed, beside.spacing_mm)
        place = image_name(beside.card, number)[1].parent
        label = native_label(scan.bits, beside.card)
        for value, meaning in beside.card.labels.items():
            name = meaning.name.split(" ")[0]
            if (label == value).any():
                mask = scan.image.with_array((label == value).astype(np.uint8))
                beside.put(f"{place.as_posix()}/instances/{name}_instance-1_annotation-1.nii.gz", mask)
    patients = [{"case_id": image_name(beside.card, number)[1].parent.name} for number in beside.numbers]
    root = beside.folder / image_name(beside.card, beside.numbers[0])[1].parts[0]
    (root / "kits23.json").write_text(json.dumps(patients), encoding="utf-8")


def _lits(beside: Beside) -> None:
    """Test volume 59, whose second and third axis are swapped."""
    beside.put("LITS-Challenge-Test-Data/test-volume-59.nii", beside.scan("test 59", axes="RSA").image)


def _pancreas(beside: Beside) -> None:
    """Withdrawn case 25, a re-crop of case 2, with its label; and a case that has no label of all organs."""
    scan = scan_of(beside.card, 2, beside.seed, beside.spacing_mm)
    label = scan.image.with_array(native_label(scan.bits, beside.card))
    write_pancreas_case(beside.folder, beside.card, "0025", scan.image, label, 80)
    if "0001" in beside.card.unlabelled_case_ids:
        write_pancreas_case(beside.folder, beside.card, "0001", beside.scan("0001").image, None, 81)


def _totalsegmentator_v1(beside: Beside) -> None:
    """Subject s0864, whose image breaks off in the middle."""
    write_mask_case(beside.folder, beside.card, 864, beside.scan("s0864"))
    image = beside.folder / image_name(beside.card, 864)[1]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def _totalsegmentator_v2(beside: Beside) -> None:
    """Subject s0092, whose labels are known to be wrong: right and left kidney have changed their names."""
    write_mask_case(beside.folder, beside.card, 92, beside.scan("s0092"))
    masks = beside.folder / image_name(beside.card, 92)[1].parent / "segmentations"
    right, left, aside = (masks / f"{name}.nii.gz" for name in ("kidney_right", "kidney_left", "aside"))
    right.rename(aside)
    left.rename(right)
    aside.rename(left)


def _word(beside: Beside) -> None:
    """The folder with LiTS scans that the authors labelled anew, and dataset.json."""
    scan = beside.scan("liver_28")
    label = scan.image.with_array(native_label(scan.bits, beside.card))
    beside.put("WORD-V0.1.0/LiTS/liver_28_word_image.nii.gz", scan.image)
    beside.put("WORD-V0.1.0/LiTS/liver_28_word_label.nii.gz", label)
    described = {"name": "WORD", "licence": "GPL", "modality": {"0": "CT"}, "numTraining": len(beside.numbers)}
    (beside.folder / "WORD-V0.1.0" / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


EXTRAS: dict[str, Callable[[Beside], None]] = {
    "abdomenct_1k": _abdomenct_1k,
    "amos22_ct": _amos,
    "btcv": _btcv,
    "chaos_ct": _chaos,
    "flare22": _flare22,
    "flare23_pool": _flare23,
    "kits": _kits,
    "lits": _lits,
    "pancreas_ct": _pancreas,
    "totalsegmentator_v1": _totalsegmentator_v1,
    "totalsegmentator_v2": _totalsegmentator_v2,
    "word": _word,
}
