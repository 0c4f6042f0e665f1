"""Write miniature data sets: each set's own folders, formats and quirks, filled with phantoms of known full truth."""

from __future__ import annotations

import zlib
from itertools import count
from pathlib import Path

import numpy as np

from datasets_registry.cards import Card, load_card
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures.dicom_sets import (
    write_chaos_case,
    write_chaos_mr,
    write_external_case,
    write_pancreas_case,
)
from datasets_registry.miniatures.native_label import native_label
from datasets_registry.miniatures.nifti_sets import image_and_label_paths, write_pair, write_task_files
from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.miniatures.scans import EXTERNAL_STYLE, ScanStyle, lesions_of, native_grid, style_of
from imaging.bits import Bits
from imaging.volume import Volume

NIFTI_READERS = ("nifti_pairs", "msd")
DICOM_WRITERS = {"chaos_ct": write_chaos_case, "pancreas_ct": write_pancreas_case}


def write_miniature(
    card_id: str,
    folder: Path,
    *,
    cases: int,
    seed: int,
    truth_folder: Path,
    spacing_mm: tuple[float, float, float] | None = None,
) -> list[str]:
    """Write `cases` scans of a data set in its native layout under `folder`; return their native ids.

    The full truth, also of classes that the set does not annotate, goes to `truth_folder/<card id>/<native id>.npz`:
    `bits` (W, X, Y, Z) uint32 on the image's native grid and `affine`, voxel index to RAS mm.
    spacing_mm: along world x, y, z, instead of the set's own. The same seed gives the same voxels.
    Raises ValueError for a layout that has no miniature, for too many cases, or for a truth folder inside `folder`.
    """
    card = load_card(card_id)
    folder, truth_folder = _separate(folder, truth_folder)
    if card.layout.reader not in NIFTI_READERS and card_id not in DICOM_WRITERS:
        raise ValueError(
            f"card {card_id}: no miniature of its layout {card.layout.reader!r}; readers {', '.join(NIFTI_READERS)} "
            f"and the cards {', '.join(DICOM_WRITERS)} have one; add a writer in miniatures/dicom_sets.py"
        )
    style = style_of(card, spacing_mm)
    native_ids, written = [], []
    for case, number in enumerate(_case_numbers(card, style, cases)):
        native_id = _native_id(card, number)
        image, bits = _scan(f"{card_id}/{native_id}", seed, style, lesions_of(case, style, card))
        label = image.with_array(native_label(bits, card))
        if card_id in DICOM_WRITERS:
            DICOM_WRITERS[card_id](folder, native_id, image, label, case)
        else:
            _, image_path, label_path = image_and_label_paths(card, number)
            write_pair(folder, (image_path, label_path), image, label)
            written.append((image_path, label_path))
        _write_truth(truth_folder, card_id, native_id, bits, image)
        native_ids.append(native_id)
    if card.layout.reader == "msd" and written:
        write_task_files(folder, card, written)
    if card_id == "chaos_ct":
        write_chaos_mr(folder)
    return native_ids


def write_external(folder: Path, *, cases: int, seed: int, truth_folder: Path, dataset: str = "local") -> list[str]:
    """Write an unlabelled DICOM cohort with (fake) names in headers and folders; return its native ids in case order.

    The ids are the pseudonyms that the reader of card `local` gives; the truth goes to
    `truth_folder/<dataset>/<native id>.npz`, as by `write_miniature`. `folder` must not hold other scans.
    """
    folder, truth_folder = _separate(folder, truth_folder)
    truths: dict[Path, tuple[Bits, Volume]] = {}
    for case in range(cases):
        image, bits = _scan(f"external/{case}", seed, EXTERNAL_STYLE, lesions_of(case, EXTERNAL_STYLE, None))
        truths[write_external_case(folder, image, case)] = (bits, image)
    local = load_card("local")
    found = {one.image[0].parent: one.native_id for one in reader_for(local).list_cases(folder, local).cases}
    if set(found) != set(truths):
        raise ValueError(f"{len(found)} series found where {len(truths)} were written; give an empty folder")
    for place, (bits, image) in truths.items():
        _write_truth(truth_folder, dataset, found[place], bits, image)
    return [found[place] for place in truths]


def _separate(folder: Path, truth_folder: Path) -> tuple[Path, Path]:
    folder, truth_folder = Path(folder).resolve(), Path(truth_folder).resolve()
    if truth_folder == folder or folder in truth_folder.parents:
        raise ValueError(
            f"truth folder {truth_folder} lies in the raw folder {folder}; the truth must stay hidden from it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder, truth_folder


def _case_numbers(card: Card, style: ScanStyle, cases: int) -> list[int]:
    """Return the first `cases` numbers of the set that have a label and are not known as faulty."""
    if card.layout.case_id is not None and cases > 1:
        raise ValueError(
            f"card {card.id}: {cases} cases asked for, but the set is the one scan {card.layout.case_id!r}"
        )
    if style.ids and cases > len(style.ids):
        raise ValueError(f"card {card.id}: {cases} cases asked for, but its labelled ids are {list(style.ids)}")
    left_out = {*card.faults, *card.unlabelled_case_ids}
    numbers: list[int] = []
    for number in style.ids or count(style.first_id):
        if len(numbers) == cases:
            break
        if _native_id(card, number) not in left_out:
            numbers.append(number)
    return numbers


def _native_id(card: Card, number: int) -> str:
    if card.id == "chaos_ct":
        return str(number)
    if card.id == "pancreas_ct":
        return f"{number:04d}"
    return image_and_label_paths(card, number)[0]


def _scan(name: str, seed: int, style: ScanStyle, lesions: dict[str, int]) -> tuple[Volume, Bits]:
    """Return image and truth of one case; its name keeps patients of different sets apart."""
    case_seed = zlib.crc32(f"{name} {seed}".encode())
    anatomy = make_anatomy(case_seed, lesions)
    shape, affine = native_grid(style, np.random.default_rng([case_seed, 1]))
    return render(anatomy, shape, affine, style.noise_hu, case_seed)


def _write_truth(truth_folder: Path, dataset: str, native_id: str, bits: Bits, image: Volume) -> None:
    place = truth_folder / dataset
    place.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(place / f"{native_id}.npz", bits=bits, affine=image.affine)
