"""Label slices as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imaging.errors import BadInput
from imaging.png_stack import read_png_stack, write_png


def test_rows_columns_and_order_of_files_are_kept(tmp_path: Path) -> None:
    slices = [np.array([[0, 63, 126], [189, 252, 1]], dtype=np.uint8), np.full((2, 3), 7, dtype=np.uint8)]
    paths = [tmp_path / "b.png", tmp_path / "a.png"]
    for path, one in zip(paths, slices, strict=True):
        write_png(one, path)
    stack = read_png_stack(paths)
    assert stack.shape == (2, 3, 2)
    assert stack[0, 2, 0] == 126  # row 0, column 2 of the first file given
    assert np.array_equal(stack[:, :, 1], slices[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_slices_of_unlike_size_are_refused(tmp_path: Path) -> None:
    write_png(np.zeros((2, 3), dtype=np.uint8), tmp_path / "0.png")
    write_png(np.zeros((3, 2), dtype=np.uint8), tmp_path / "1.png")
    with pytest.raises(BadInput, match=r"1.png: found 3 rows x 2 columns, expected 2 x 3"):
        read_png_stack(sorted(tmp_path.iterdir()))


def test_torn_png_is_refused_and_not_read_as_black(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    write_png(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8), path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(BadInput, match="unreadable picture"):
        read_png_stack([path])


@pytest.mark.parametrize("mode", ["RGB", "P", "I;16", "LA"])
def test_colour_palette_and_16_bit_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "0.png"
    Image.new(mode, (3, 2)).save(path)
    with pytest.raises(BadInput, match=f"PNG of mode {mode}"):
        read_png_stack([path])


def test_no_files_and_wrong_arrays_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        read_png_stack([])
    with pytest.raises(ValueError, match="int16"):
        write_png(np.zeros((2, 2), dtype=np.int16), tmp_path / "x.png")
