"""What other people's OME-Zarr software finds in a case, and classes beyond the first word through every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_rows import AFFINE, SHAPE
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from catalog.lake import Lake
from imaging.bits import get_channel, words_for
from imaging.volume import Volume


def test_the_ome_zarr_reader_finds_image_labels_levels_and_scale(lake: Lake, scan: Any, label: Any) -> None:
    stored = lake.write_case("kits", "case_1", "ab" * 32, scan(), {}, {"human": label(words=2)})
    lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1))
    nodes = {Path(str(node.zarr.path)).name: node for node in Reader(parse_url(lake.root / stored.path))()}
    assert set(nodes) == {"abababababab.zarr", "labels", "human", "pseudo-v1-00ff"}
    image, human = nodes["abababababab.zarr"], nodes["human"]
    np.testing.assert_array_equal(np.asarray(image.data[0]), scan().array.T)
    np.testing.assert_array_equal(np.asarray(human.data[0]), label(words=2).transpose(0, 3, 2, 1))
    # Halves of 66, 37, 5 along Z, Y, X, rounded up.
    assert [level.shape for level in image.data] == [(66, 37, 5), (33, 19, 3), (17, 10, 2)]
    assert [level.shape for level in human.data] == [(2, 66, 37, 5), (2, 33, 19, 3), (2, 17, 10, 2)]
    assert [axis["name"] for axis in human.metadata["axes"]] == ["c", "z", "y", "x"]
    assert all(axis["unit"] == "millimeter" for axis in image.metadata["axes"])
    scales = [transformations[0]["scale"] for transformations in image.metadata["coordinateTransformations"]]
    # Spacing 0.8, 1.5, 2.5 mm along X, Y, Z, doubled from level to level.
    np.testing.assert_allclose(scales, [[2.5, 1.5, 0.8], [5.0, 3.0, 1.6], [10.0, 6.0, 3.2]])


@pytest.mark.parametrize(("classes", "words"), [(33, 2), (130, 5)])
def test_classes_of_every_word_come_back_from_every_level(lake: Lake, scan: Any, classes: int, words: int) -> None:
    assert words_for(classes) == words
    bits = np.zeros((words, *SHAPE), dtype=np.uint32)
    # One voxel a class, in the class's own place; the last two classes share theirs with the first.
    places = {channel: (channel % 5, channel % 37, (7 * channel) % 66) for channel in range(classes)}
    places[classes - 1] = places[classes - 2] = places[0]
    for channel, (x, y, z) in places.items():
        bits[channel // 32, x, y, z] |= np.uint32(1 << (channel % 32))
    stored = lake.write_case("kits", "case_1", "ab" * 32, Volume(scan().array, AFFINE), {}, {"human": bits})
    row = {"case_id": "kits/case_1", "path": stored.path, "manifest": stored.manifest.to_json()}
    opened = lake.open_bits(row, "human")
    assert opened.words == words
    whole = opened.read()
    levels = [np.asarray(node.data[level]) for node in _labels(lake, stored.path) for level in (1, 2)]
    for channel, place in places.items():
        assert np.argwhere(get_channel(whole, channel)).tolist() == [list(place)], channel
        for level, coarse in enumerate(levels, start=1):
            found = np.argwhere(coarse[channel // 32] >> np.uint32(channel % 32) & 1)
            assert found.tolist() == [[n // 2**level for n in reversed(place)]], (channel, level)
        start = tuple(n - 1 for n in place)  # over the edge of the scan for some
        patch = lake.read_bits_patch(row, "human", (start[0], start[1], start[2]), (3, 3, 3)).array
        assert get_channel(patch, channel)[1, 1, 1]
        assert get_channel(patch, channel).sum() == 1


def _labels(lake: Lake, path: str) -> list[Any]:
    return [node for node in Reader(parse_url(lake.root / path))() if Path(str(node.zarr.path)).name == "human"]
