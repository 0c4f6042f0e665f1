"""CT slices in every transfer syntax in use, read back as the same HU."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from dicom_samples import LPS, edit_all, write
from imaging_samples import linear_scan
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import imaging.dicom_header
from imaging.dicom import read_series
from imaging.errors import BadInput

SCAN = linear_scan((40, 33, 3), LPS, np.int16)


def by_pydicom(uid: str) -> Callable[[list[Path]], None]:
    return lambda paths: edit_all(paths, lambda data: data.compress(uid))


def by_gdcm(syntax: int, *, unsigned: bool = True) -> Callable[[list[Path]], None]:
    """Return a writer through GDCM; JPEG holds 16-bit unsigned, so values are stored from 0 on."""

    def compress(paths: list[Path]) -> None:
        if unsigned:
            edit_all(paths, _as_unsigned)
        for path in paths:
            reader = gdcm.ImageReader()
            reader.SetFileName(str(path))
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(path))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()

    return compress


def _as_unsigned(data: Any) -> None:
    data.PixelRepresentation = 0


def _twelve_bits(data: Any) -> None:
    data.PixelRepresentation, data.BitsStored, data.HighBit = 0, 12, 11


def _rewrite(uid: str) -> Callable[[list[Path]], None]:
    def change(paths: list[Path]) -> None:
        for path in paths:
            data = pydicom.dcmread(path)
            if uid == ExplicitVRBigEndian:
                data.PixelData = data.pixel_array.astype(">i2").tobytes()
            data.file_meta.TransferSyntaxUID = uid
            little = uid != ExplicitVRBigEndian
            pydicom.dcmwrite(path, data, implicit_vr=uid == ImplicitVRLittleEndian, little_endian=little)

    return change


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("JPEG Lossless, Non-Hierarchical, First-Order", by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1)),
        ("JPEG Lossless, Non-Hierarchical (Process 14)", by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14)),
        ("JPEG-LS Lossless", by_pydicom(JPEGLSLossless)),
        ("JPEG 2000 Image Compression (Lossless Only)", by_pydicom(JPEG2000Lossless)),
        ("RLE Lossless", by_pydicom(RLELossless)),
        ("Deflated", _rewrite(DeflatedExplicitVRLittleEndian)),
        ("Big Endian", _rewrite(ExplicitVRBigEndian)),
        ("Implicit VR", _rewrite(ImplicitVRLittleEndian)),
    ],
)
def test_lossless_syntaxes_give_the_same_hu(tmp_path: Path, name: str, compress: Callable[[list[Path]], None]) -> None:
    paths = write(tmp_path, SCAN)
    compress(paths)
    assert name in pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.name
    volume = read_series(paths)
    assert np.array_equal(volume.array, SCAN.array)
    assert volume.steps == ()


@pytest.mark.parametrize("bits", [8, 12])
def test_lossy_jpeg_comes_close_and_says_so(tmp_path: Path, bits: int) -> None:
    smooth = SCAN.with_array(np.clip(SCAN.array, -1024, -1024 + 2**bits - 1))
    paths = write(tmp_path, smooth)
    if bits == 8:

        def store(data: Any) -> None:
            pixels = data.pixel_array.astype(np.uint8)
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
            data.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)

        edit_all(paths, store)
        by_gdcm(gdcm.TransferSyntax.JPEGBaselineProcess1, unsigned=False)(paths)
    else:
        edit_all(paths, _twelve_bits)
        by_gdcm(gdcm.TransferSyntax.JPEGExtendedProcess2_4, unsigned=False)(paths)
    assert ("Baseline" if bits == 8 else "Extended") in pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.name
    edit_all(paths, lambda data: setattr(data, "LossyImageCompression", "01"))
    volume = read_series(paths)
    assert np.abs(volume.array.astype(int) - smooth.array).max() <= 12
    assert volume.steps[0].as_json() == '{"slices": 3, "step": "lossy_compression"}'


@pytest.mark.parametrize(
    ("uid", "named"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level (1.2.840.10008.1.2.4.100)"),
        ("1.2.826.0.1.4711", "1.2.826.0.1.4711"),
    ],
)
def test_syntax_without_a_decoder_is_named(tmp_path: Path, uid: str, named: str) -> None:
    paths = write(tmp_path, SCAN)
    by_pydicom(RLELossless)(paths)
    for path in paths:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = uid
        pydicom.dcmwrite(path, data, implicit_vr=False, little_endian=True)
    with pytest.raises(BadInput) as caught:
        read_series(paths)
    assert caught.value.code == "dicom_syntax"
    assert caught.value.found == f"transfer syntax {named}, for which no decoder is installed"


def test_padding_is_air_under_every_decoder(tmp_path: Path) -> None:
    paths = write(tmp_path, SCAN)

    def pad(data: Any) -> None:
        pixels = data.pixel_array.copy()
        pixels[0, :2] = 4000
        data.PixelData = pixels.tobytes()
        data.add_new("PixelPaddingValue", "US", 4000)

    edit_all(paths, pad)
    by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1)(paths)
    assert read_series(paths).array[:2, 0, 0].tolist() == [-1024, -1024]


def test_deflated_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, SCAN)
    _rewrite(DeflatedExplicitVRLittleEndian)(paths)
    raw = paths[1].read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    body = zlib.decompress(raw[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(body + b"\0" * 2**24) + packer.flush()
    paths[1].write_bytes(raw[:start] + bomb)
    monkeypatch.setattr(imaging.dicom_header, "INFLATED_MOST", 2**22)
    with pytest.raises(BadInput) as caught:
        read_series(paths)
    assert caught.value.code == "dicom_unreadable"


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_deflated_file_is_refused(tmp_path: Path, damage: str) -> None:
    paths = write(tmp_path, SCAN)
    _rewrite(DeflatedExplicitVRLittleEndian)(paths)
    raw = bytearray(paths[1].read_bytes())
    if damage == "cut":
        raw = raw[:-40]
    else:
        raw[144 + int.from_bytes(raw[140:144], "little")] ^= 0xFF
    paths[1].write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        read_series(paths)
    assert caught.value.code == "dicom_unreadable"


def test_colour_pictures_and_absurd_sizes_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, SCAN)
    edit_all(paths, lambda data: setattr(data, "SamplesPerPixel", 3))
    with pytest.raises(BadInput, match="SamplesPerPixel"):
        read_series(paths)
    paths = write(tmp_path, SCAN)
    edit_all(paths, lambda data: (setattr(data, "Rows", 65535), setattr(data, "Columns", 65535)))
    with pytest.raises(BadInput) as caught:
        read_series(paths)
    assert caught.value.code in ("too_large", "dicom_pixels")
