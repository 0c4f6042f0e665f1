"""Is this the kind of file its name says, or a web page in its place? Told by the first and last bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from imaging.errors import BadInput
from imaging.nifti_bytes import GZIP_MAGIC, is_html

HEAD_BYTES = 1024
"""Enough for every signature below; the one of tar ends at byte 262, that of DICOM at 132."""

GZIP = ((0, GZIP_MAGIC),)
SIGNATURES: dict[str, tuple[tuple[int, bytes], ...]] = {
    ".zip": ((0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"PK\x07\x08")),
    ".gz": GZIP,
    ".tgz": GZIP,
    ".xz": ((0, b"\xfd7zXZ\x00"),),
    ".7z": ((0, b"7z\xbc\xaf\x27\x1c"),),
    ".tar": ((257, b"ustar"),),
    ".dcm": ((128, b"DICM"),),
    ".nii": ((344, b"n+1\x00"), (4, b"n+2\x00"), (0, GZIP_MAGIC), (344, b"ni1\x00")),
}
"""Per suffix, the (offset, bytes) of which one must be found. `.nii` may be gzip: the reader tells by itself."""

_ZIP_END = b"PK\x05\x06"
_ZIP_END_WITHIN = 65_535 + 22


def fits_name(name: str, head: bytes) -> bool | None:
    """Return whether `head`, the first bytes of a file, fits its suffix; None for a suffix that proves nothing."""
    signatures = SIGNATURES.get(Path(name).suffix.lower())
    if signatures is None:
        return None
    return any(head[offset : offset + len(magic)] == magic for offset, magic in signatures)


def looks_like_page(head: bytes, content_type: str) -> bool:
    """Return whether these first bytes, or the type the server states, are those of a web page."""
    return is_html(head) or content_type.split(";")[0].strip().lower() == "text/html"


def require_content(name: str, head: bytes, address: str, content_type: str, how_to_log_in: str) -> None:
    """Raise BadInput when `head` is a web page where a file was expected, or not the kind of file that `name` says.

    address: without secrets; after all redirects, so that a login page shows where it is.
    """
    fits = fits_name(name, head)
    if fits:
        return
    if looks_like_page(head, content_type) and Path(name).suffix.lower() not in (".html", ".htm", ".xml"):
        raise BadInput(
            "html",
            f"{name} from {address}",
            "HTML, probably a login page",
            f"a {Path(name).suffix or 'binary'} file",
            how_to_log_in,
        )
    if fits is False:
        raise BadInput(
            "wrong_kind",
            f"{name} from {address}",
            f"first bytes {head[:8].hex(' ') or '(none)'}",
            f"the signature of a {Path(name).suffix} file",
            "open the address in a browser to see what it serves",
        )


def require_whole_zip(name: str, path: Path) -> None:
    """Raise BadInput when a zip lacks its closing record: it was cut, though every length agreed."""
    if Path(name).suffix.lower() != ".zip":
        return
    with path.open("rb") as file:
        if _ZIP_END not in _tail(file, _ZIP_END_WITHIN):
            raise BadInput(
                "truncated",
                name,
                f"{path.stat().st_size} bytes without the closing record",
                "a whole zip",
                "the server or a proxy cut the file; fetch it again",
            )


def _tail(file: BinaryIO, count: int) -> bytes:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - count), os.SEEK_SET)
    return file.read()
