"""Write miniature data sets: each set's own folders, formats and quirks, filled with phantoms of known full truth."""

from __future__ import annotations

from pathlib import Path

from datasets_registry.cards import Card, load_card
from datasets_registry.miniatures.case_scans import Spacing, scan_of
from datasets_registry.miniatures.dicom_sets import write_chaos_case, write_chaos_mr, write_pancreas_case
from datasets_registry.miniatures.extras import write_extras
from datasets_registry.miniatures.ircadb_set import write_ircadb_case
from datasets_registry.miniatures.mask_sets import write_mask_case, write_meta
from datasets_registry.miniatures.nifti_sets import image_and_label_paths, write_pair, write_task_files
from datasets_registry.miniatures.numbers import case_numbers, native_id_of, turn_of
from datasets_registry.miniatures.partial_labels import label_of
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.truth import separate_folders, write_truth

NIFTI_READERS = ("nifti_pairs", "msd")
OTHER_READERS = ("nifti_masks", "dicom_masks")
DICOM_SETS = ("chaos_ct", "pancreas_ct")


def write_miniature(
    card_id: str,
    folder: Path,
    *,
    cases: int,
    seed: int,
    truth_folder: Path,
    spacing_mm: Spacing | None = None,
    variant: str | None = None,
    extras: bool = False,
) -> list[str]:
    """Write `cases` scans of a data set in its native layout under `folder`; return their native ids.

    The full truth, also of classes that the set does not annotate, goes to `truth_folder/<card id>/<native id>.npz`:
    `bits` (W, X, Y, Z) uint32 on the image's native grid and `affine`, voxel index to RAS mm.
    spacing_mm: along world x, y, z, instead of the set's own. variant: which of the card's label variants the labels
    are. extras: peculiar cases come first, and what lies beside the cases in the real archive is written too. The same
    seed gives the same voxels, and twins (`twin_groups`) show the same scan.
    Raises ValueError for a layout that has no miniature, for too many cases, or for a truth folder inside `folder`.
    """
    card = load_card(card_id, variant=variant)
    folder, truth_folder = separate_folders(folder, truth_folder)
    _require_writer(card)
    numbers = case_numbers(card, cases, extras=extras)
    for number in numbers:
        scan = scan_of(card, number, seed, spacing_mm)
        _write_case(folder, card, number, scan)
        write_truth(truth_folder, card_id, native_id_of(card, number), scan)
    _write_set_files(folder, card, numbers)
    if extras and numbers:
        write_extras(folder, card, numbers, seed, spacing_mm)
    return [native_id_of(card, number) for number in numbers]


def _require_writer(card: Card) -> None:
    if card.layout.reader in (*NIFTI_READERS, *OTHER_READERS) or card.id in DICOM_SETS:
        return
    raise ValueError(
        f"card {card.id}: no miniature of its layout {card.layout.reader!r}; readers "
        f"{', '.join((*NIFTI_READERS, *OTHER_READERS))} and the cards {', '.join(DICOM_SETS)} have one; add a writer "
        "to miniatures/write.py"
    )


def _write_case(folder: Path, card: Card, number: int, scan: Scan) -> None:
    if card.layout.reader == "nifti_masks":
        write_mask_case(folder, card, number, scan)
        return
    if card.layout.reader == "dicom_masks":
        write_ircadb_case(folder, number, scan)
        return
    label = scan.image.with_array(label_of(scan.bits, card, number))
    native_id, turn = native_id_of(card, number), turn_of(card, number)
    if card.id == "chaos_ct":
        write_chaos_case(folder, native_id, scan.image, label, turn)
    elif card.id == "pancreas_ct":
        write_pancreas_case(folder, card, native_id, scan.image, label, turn)
    else:
        write_pair(folder, image_and_label_paths(card, number)[1:], scan.image, label)


def _write_set_files(folder: Path, card: Card, numbers: list[int]) -> None:
    """Write what a set always has besides its cases: descriptions, and the half of CHAOS that is no CT."""
    if card.layout.reader == "msd" and numbers:
        write_task_files(folder, card, [image_and_label_paths(card, number)[1:] for number in numbers])
    elif card.layout.reader == "nifti_masks" and numbers:
        write_meta(folder, card, numbers)
    elif card.id == "chaos_ct":
        write_chaos_mr(folder)
