"""Label maps for viewers: layers without overlap, .seg.nrrd, and names and colours in and beside NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from imaging_samples import oriented_affine
from numpy.typing import NDArray

from imaging.bits import empty_bits, set_channel
from imaging.label_table import LabelEntry, itksnap_table, slicer_table
from imaging.layers import overlaps, paint, split_layers
from imaging.nifti import read_nifti, write_nifti
from imaging.nrrd import nrrd_segments, read_nrrd
from imaging.nrrd_write import SlicerSegment, write_seg_nrrd
from imaging.resample import Grid
from imaging.volume import Volume

SHAPE = (4, 3, 2)
AFFINE = oriented_affine((0.8, 1.1, 2.5), (10.0, -20.0, 30.0), (0, 1, 2), (-1.0, 1.0, 1.0))
LIVER = LabelEntry(6, "liver", "liver", "#a44a3f")
TUMOUR = LabelEntry(27, "liver_tumor", "liver tumor", "#00f5d4")
VESSEL = LabelEntry(300, "own_vessel", "own vessel", "#0000ff")


def masks() -> dict[str, NDArray[np.bool_]]:
    liver, tumour, vessel = (np.zeros(SHAPE, dtype=bool) for _ in range(3))
    liver[0:3, 0:2, :] = True
    tumour[1:3, 1, 0] = True
    vessel[3, 2, 1] = True
    return {"liver": liver, "tumour": tumour, "vessel": vessel}


def bits() -> NDArray[np.uint32]:
    found = empty_bits(SHAPE, 300)
    for channel, mask in zip((5, 26, 299), masks().values(), strict=True):
        set_channel(found, channel, mask)
    return found


def test_overlapping_classes_get_layers_and_others_share_one() -> None:
    assert overlaps(bits(), [299, 26, 5]) == {(5, 26)}
    assert split_layers(bits(), [5, 26, 299]) == [[5, 299], [26]]
    assert split_layers(bits(), []) == []


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint32, (2, 3, 2, 20), elements=st.sampled_from([0, 1, 3, 8, 2**31, 9])))
def test_layers_hold_every_mask_whole(words: NDArray[np.uint32]) -> None:
    channels = [0, 1, 3, 31, 32, 33, 35, 63]
    layers = split_layers(words, channels)
    assert sorted(channel for layer in layers for channel in layer) == channels
    for layer in layers:
        label = paint(words, {channel: channel + 1 for channel in layer})
        for channel in layer:
            mask = (words[channel // 32] >> np.uint32(channel % 32)) & 1
            assert np.array_equal(label == channel + 1, mask == 1)


def test_paint_covers_in_the_order_given_and_widens_for_large_values() -> None:
    label = paint(bits(), {5: 6, 26: 27})
    assert label.dtype == np.uint8
    assert (label[1, 1, 0], label[0, 0, 0], label[3, 2, 1]) == (27, 6, 0)
    assert paint(bits(), {5: 6, 26: 27, 299: 300}).dtype == np.uint16


def test_slicer_file_of_one_layer_is_read_by_ours_and_by_simpleitk(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    segments = [SlicerSegment(5, LIVER, "terms"), SlicerSegment(299, VESSEL)]
    assert write_seg_nrrd(path, bits(), Grid(SHAPE, AFFINE), segments) == [["liver", "own_vessel"]]
    volume = read_nrrd(path)
    assert np.allclose(volume.affine, AFFINE)
    assert np.array_equal(volume.array == 6, masks()["liver"])
    assert np.array_equal(volume.array == 300, masks()["vessel"])
    assert nrrd_segments(path) == {6: "liver", 300: "own vessel"}
    image = sitk.ReadImage(str(path))
    assert np.allclose(np.array(image.GetOrigin()) * (-1, -1, 1), AFFINE[:3, 3])
    assert np.array_equal(sitk.GetArrayFromImage(image).T, volume.array)


def test_slicer_file_keeps_overlapping_segments_in_layers(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    segments = [SlicerSegment(5, LIVER), SlicerSegment(26, TUMOUR, "terms"), SlicerSegment(299, VESSEL)]
    layers = write_seg_nrrd(path, bits(), Grid(SHAPE, AFFINE), segments)
    assert layers == [["liver", "own_vessel"], ["liver_tumor"]]
    data, header = nrrd.read(str(path))
    assert header["kinds"] == ["list", "domain", "domain", "domain"]
    assert np.array_equal(data[0] == 6, masks()["liver"])
    assert np.array_equal(data[1] == 27, masks()["tumour"])
    told = {
        name: header[f"Segment1_{name}"] for name in ("ID", "Name", "Layer", "LabelValue", "Extent", "Color", "Tags")
    }
    assert told == {"ID": "liver_tumor", "Name": "liver tumor", "Layer": "1", "LabelValue": "27",
                    "Extent": "1 2 1 1 0 0", "Color": "0.000000 0.960784 0.831373",
                    "Tags": "TerminologyEntry:terms|"}  # fmt: skip
    assert np.allclose(header["space directions"][1:] * (-1, -1, 1), AFFINE[:3, :3].T)
    assert not list(tmp_path.glob(".*"))


def test_names_and_colours_stand_in_the_nifti_and_change_no_voxel(tmp_path: Path) -> None:
    label = Volume(paint(bits(), {5: 6, 26: 27}), AFFINE)
    path = tmp_path / "a.nii.gz"
    write_nifti(label, path, [LIVER, TUMOUR])
    read = nibabel.load(path)
    assert np.array_equal(np.asarray(read.dataobj), label.array)
    assert read.header.get_intent()[0] == "label"
    (extension,) = read.header.extensions
    assert extension.get_code() == 0
    xml = extension.get_content()
    text = xml if isinstance(xml, str) else xml.decode()
    assert 'Key="27" Red="0.000000" Green="0.960784" Blue="0.831373" Alpha="1">liver_tumor<' in text
    assert np.array_equal(read_nifti(path).array, label.array)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, label.array)
    assert np.allclose(image.GetSpacing(), (0.8, 1.1, 2.5))


def test_colour_tables_have_a_line_a_value() -> None:
    assert '27 0 245 212 1 1 1 "liver tumor"' in itksnap_table([LIVER, TUMOUR]).splitlines()
    assert slicer_table([LIVER, TUMOUR]).splitlines()[1:] == [
        "# 3 values",
        "0 background 0 0 0 0",
        "6 liver 164 74 63 255",
        "27 liver_tumor 0 245 212 255",
    ]
