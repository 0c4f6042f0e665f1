"""`harmonise`: one 512 x 512 x 200 CT with labels to the lake at 1.5 mm, against MONAI's transforms and a gzip h5."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.side_by_side import run_in_turn
from catalog.lake import Lake
from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, reader_for
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.harmonise import harmonise

SHAPE = (512, 512, 200)
AFFINE = np.array([[-0.8, 0, 0, 200], [0, -0.8, 0, 200], [0, 0, 2.0, -300], [0, 0, 0, 1.0]])
SPACING_MM = (1.5, 1.5, 1.5)
SAME_HU = 1


def _write_case(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.normal(0, 1, (128, 128, 50)).astype(np.float32), 2) * 900 + 40
    hu = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2) + rng.normal(0, 12, SHAPE)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((x - 256) / 220) ** 2 + ((y - 256) / 160) ** 2 < 1
    image = np.where(body, hu, -1000).clip(-1024, 3071).astype(np.int16)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for value in range(1, 14):
        # Right-sided organs lie on the low indices of this LPS grid.
        centre = (140 + 18 * (value if value not in (2, 12) else 0), 150 + 15 * value, 20 + 12 * value)
        label[((x - centre[0]) / 30) ** 2 + ((y - centre[1]) / 30) ** 2 + ((z - centre[2]) / 12) ** 2 < 1] = value
    paths = folder / "img0001.nii.gz", folder / "label0001.nii.gz"
    write_nifti(Volume(image, AFFINE), paths[0])
    write_nifti(Volume(label, AFFINE), paths[1])
    return paths


def main() -> None:
    from monai.transforms import Compose, CropForegroundd, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

    torch.set_num_threads(2)
    card = load_card("btcv")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image_path, label_path = _write_case(folder)
        files = CaseFiles("btcv", "0001", (image_path,), (label_path,))
        lake = Lake(folder / "lake")
        keys = ["image", "label"]
        transforms = Compose(
            [
                LoadImaged(keys),
                EnsureChannelFirstd(keys),
                Orientationd(keys, axcodes="RAS", labels=None),
                Spacingd(keys, pixdim=SPACING_MM, mode=("bilinear", "nearest")),
                CropForegroundd(keys, source_key="image", select_fn=lambda image: image > -900),
            ]
        )
        runs = iter(range(10**6))

        def ours() -> np.ndarray:
            case = harmonise(reader_for(card).read_case(files, card), card, SPACING_MM, "bench")
            labels = {} if case.bits is None else {"shipped": case.bits}
            lake.write_case("bench", "scan", f"{next(runs):064d}", case.image, case.geometry, labels)
            return case.image.array

        def peer() -> np.ndarray:
            made = transforms({"image": str(image_path), "label": str(label_path)})
            with h5py.File(folder / "case.h5", "w") as stream:
                for key in keys:
                    stream.create_dataset(key, data=made[key].numpy(), compression="gzip")
            return np.asarray(made["image"][0])

        _compare(
            ours(),
            np.asarray(
                transforms.transforms[3](
                    transforms.transforms[2](
                        transforms.transforms[1](
                            transforms.transforms[0]({"image": str(image_path), "label": str(label_path)})
                        )
                    )
                )["image"][0]
            ),
        )
        run_in_turn("harmonise", ours, peer, repeats=3)


def _compare(ours: np.ndarray, peer: np.ndarray) -> None:
    if ours.shape != peer.shape or np.abs(ours - peer).max() > SAME_HU:
        raise ValueError(
            f"harmonise: shapes {ours.shape} and {peer.shape}, largest difference "
            f"{np.abs(ours - peer).max() if ours.shape == peer.shape else 'unknown'} HU, expected at most {SAME_HU}"
        )
