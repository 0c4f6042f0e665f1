"""The hidden truth beside a miniature: all classes of every scan, in a folder that no reader looks into."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets_registry.miniatures.scan_changes import Scan


def separate_folders(folder: Path, truth_folder: Path) -> tuple[Path, Path]:
    """Return both folders resolved, the raw one made; ValueError when the truth would lie inside it."""
    folder, truth_folder = Path(folder).resolve(), Path(truth_folder).resolve()
    if truth_folder == folder or folder in truth_folder.parents:
        raise ValueError(
            f"truth folder {truth_folder} lies in the raw folder {folder}; the truth must stay hidden from it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder, truth_folder


def write_truth(truth_folder: Path, dataset: str, native_id: str, scan: Scan) -> None:
    """Write `truth_folder/<dataset>/<native id>.npz`: `bits` (W, X, Y, Z) and `affine`, on the image's native grid."""
    place = truth_folder / dataset
    place.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(place / f"{native_id}.npz", bits=scan.bits, affine=scan.image.affine)
