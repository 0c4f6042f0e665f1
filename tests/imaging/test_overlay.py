"""Pictures: the right way up, coloured where the label is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from imaging_samples import ORIENTATIONS, oriented_affine
from numpy.typing import NDArray
from PIL import Image

from imaging.bits import empty_bits, set_channel
from imaging.overlay import overlay_png, overlay_strip
from imaging.planes import Colour, cut_planes
from imaging.volume import Volume

CLASSES: dict[int, tuple[str, Colour]] = {0: ("liver", "#ff0000"), 33: ("spleen", (0.0, 0.0, 1.0))}


def ras_case() -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
    """A soft box with a right, anterior, superior red block and a left, anterior, superior blue one."""
    image = np.full((20, 16, 12), 40, dtype=np.int16)
    bits = empty_bits(image.shape, 34)
    red, blue = np.zeros((2, *image.shape), dtype=bool)
    red[12:19, 9:15, 7:11] = True
    blue[1:6, 9:15, 7:11] = True
    set_channel(bits, 0, red)
    set_channel(bits, 33, blue)
    return image, bits


def pixels(path: Path) -> NDArray[np.int16]:
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)


def centre_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean row and column of the true pixels."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("turn", [ORIENTATIONS[0], ORIENTATIONS[7], ORIENTATIONS[21], ORIENTATIONS[46]])
def test_patients_right_is_on_the_left_whatever_the_axis_order(
    tmp_path: Path, turn: tuple[tuple[int, ...], tuple[float, ...]]
) -> None:
    image, bits = ras_case()
    order, signs = turn
    flips = [slice(None, None, int(s)) for s in signs]
    # only directions matter here, so the origin may stay
    spacing = tuple((2.0, 2.0, 3.0)[axis] for axis in order)
    affine = oriented_affine((spacing[0], spacing[1], spacing[2]), (0.0, 0.0, 0.0), order, signs)
    turned = Volume(image.transpose(order)[tuple(flips)], affine)
    turned_bits = bits.transpose(0, *(a + 1 for a in order))[(slice(None), *flips)]
    picture = pixels(overlay_png(turned, turned_bits, CLASSES, tmp_path / "o.png", "case"))
    picture = picture[: int(picture.shape[0] * 0.93)]  # without the legend
    third = picture.shape[1] // 3
    red = (picture[:, :, 0] - picture[:, :, 1] > 60) & (picture[:, :, 2] < 120)
    blue = (picture[:, :, 2] - picture[:, :, 1] > 60) & (picture[:, :, 0] < 120)
    grey = (picture.max(axis=2) - picture.min(axis=2) < 10) & (picture[:, :, 0] > 60) & (picture[:, :, 0] < 200)
    for panel in (0, 1):  # axial, coronal
        window = np.s_[:, panel * third : (panel + 1) * third]
        red_row, red_column = centre_of(red[window])
        _, blue_column = centre_of(blue[window])
        grey_row, _ = centre_of(grey[window])
        assert red_column < blue_column
        assert red_row < grey_row  # anterior and superior are on top


def test_sagittal_shows_anterior_on_the_left(tmp_path: Path) -> None:
    image, bits = ras_case()
    only_red = bits.copy()
    only_red[1] = 0
    volume = Volume(image, np.diag([2.0, 2.0, 3.0, 1.0]))
    picture = pixels(overlay_png(volume, only_red, {0: CLASSES[0]}, tmp_path / "o.png"))
    panel = picture[: int(picture.shape[0] * 0.93), 2 * (picture.shape[1] // 3) :]
    red = panel[:, :, 0] - panel[:, :, 1] > 60
    grey = (panel.max(axis=2) - panel.min(axis=2) < 10) & (panel[:, :, 0] > 60) & (panel[:, :, 0] < 200)
    assert centre_of(red)[1] < centre_of(grey)[1]


def test_reference_is_drawn_as_lines(tmp_path: Path) -> None:
    image, bits = ras_case()
    volume = Volume(image, np.diag([2.0, 2.0, 3.0, 1.0]))
    nothing = np.zeros_like(bits)
    filled = pixels(overlay_png(volume, bits, CLASSES, tmp_path / "a.png"))
    lines = pixels(overlay_png(volume, nothing, CLASSES, tmp_path / "b.png", second_bits=bits))
    colour_a = (filled.max(axis=2) - filled.min(axis=2) > 60).sum()
    colour_b = (lines.max(axis=2) - lines.min(axis=2) > 60).sum()
    assert 0 < colour_b < colour_a / 2


def test_empty_label_still_makes_a_picture_and_leaves_no_other_file(tmp_path: Path) -> None:
    image, bits = ras_case()
    volume = Volume(image, np.diag([2.0, 2.0, 3.0, 1.0]))
    path = overlay_png(volume, np.zeros_like(bits), {}, tmp_path / "o.png")
    again = overlay_png(volume, np.zeros_like(bits), {}, tmp_path / "p.png")
    assert path.read_bytes() == again.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.png", "p.png"]


def test_bits_of_another_shape_are_refused(tmp_path: Path) -> None:
    image, bits = ras_case()
    with pytest.raises(ValueError, match="do not fit an image"):
        overlay_png(Volume(image, np.eye(4)), bits[:, 1:], CLASSES, tmp_path / "o.png")


def strip(data: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


@pytest.mark.parametrize("turn", [ORIENTATIONS[0], ORIENTATIONS[7], ORIENTATIONS[46]])
def test_the_small_strip_shows_the_patients_right_on_the_left_and_keeps_millimetres(
    turn: tuple[tuple[int, ...], tuple[float, ...]],
) -> None:
    image, bits = ras_case()
    order, signs = turn
    flips = [slice(None, None, int(s)) for s in signs]
    spacing = tuple((2.0, 2.0, 3.0)[axis] for axis in order)
    affine = oriented_affine((spacing[0], spacing[1], spacing[2]), (0.0, 0.0, 0.0), order, signs)
    turned = Volume(image.transpose(order)[tuple(flips)], affine)
    turned_bits = bits.transpose(0, *(a + 1 for a in order))[(slice(None), *flips)]
    picture = strip(overlay_strip(turned, turned_bits, CLASSES, height=144))
    # axial 40 x 32 mm, coronal 40 x 36 mm, sagittal 32 x 36 mm, each 144 pixels high, with gaps of 4
    assert picture.shape == (144, 180 + 4 + 160 + 4 + 128, 3)
    for panel in (picture[:, :180], picture[:, 184:344]):
        red = (panel[:, :, 0] - panel[:, :, 1] > 60) & (panel[:, :, 2] < 120)
        blue = (panel[:, :, 2] - panel[:, :, 1] > 60) & (panel[:, :, 0] < 120)
        assert centre_of(red)[1] < centre_of(blue)[1]
        assert centre_of(red)[0] < 72  # anterior and superior are on top


def test_planes_go_through_the_class_of_interest() -> None:
    image, bits = ras_case()
    volume = Volume(image, np.diag([2.0, 2.0, 3.0, 1.0]))
    small = np.zeros(image.shape, dtype=bool)
    small[16, 3, 2] = True
    set_channel(bits, 1, small)
    classes = {**CLASSES, 1: ("lesion", "#00ff00")}
    through = {plane.name: plane.index for plane in cut_planes(volume, bits, classes, focus=1)}
    assert through == {"axial": 2, "coronal": 3, "sagittal": 16}
    without = {plane.name: plane.index for plane in cut_planes(volume, bits, classes)}
    nothing = {plane.name: plane.index for plane in cut_planes(volume, bits, classes, focus=2)}
    assert nothing == without != through  # a class that is not there: through the middle of all
