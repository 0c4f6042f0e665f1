"""The bytes of a file from a response that may be compressed though plain bytes were asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

import httpx

from datasets_registry.sources.content import HEAD_BYTES, fits_name
from datasets_registry.sources.errors import DownloadFailed, PassingFault
from datasets_registry.sources.http import public_url

GZIP_WINDOW = 31
"""zlib's window argument for a gzip header and trailer."""


def plain_blocks(response: httpx.Response, name: str) -> Iterator[bytes]:
    """Yield the file's own bytes.

    Storage often labels a `.nii.gz` that it stores as it is `Content-Encoding: gzip`. The file is then the body itself
    and not what it decompresses to; the signature that `name` asks for decides. Raises DownloadFailed for another
    encoding, PassingFault where the compressed body ends early.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    blocks = response.iter_raw()
    if encoding == "identity":
        yield from blocks
        return
    if encoding not in ("gzip", "x-gzip"):
        raise DownloadFailed(
            name, public_url(str(response.url)), f"Content-Encoding {encoding}", "fetch the file with a browser"
        )
    head = b""
    for block in blocks:
        head += block
        if len(head) >= HEAD_BYTES:
            break
    if _is_the_file_itself(name, head):
        yield from chain([head], blocks)
        return
    decoder = zlib.decompressobj(GZIP_WINDOW)
    for block in chain([head], blocks):
        try:
            yield decoder.decompress(block)
        except zlib.error:
            raise PassingFault("the compressed body is damaged") from None
    if not decoder.eof:
        raise PassingFault("the compressed body ends early")


def _is_the_file_itself(name: str, head: bytes) -> bool:
    try:
        inside = zlib.decompressobj(GZIP_WINDOW).decompress(head)
    except zlib.error:
        return True
    return bool(fits_name(name, head)) and not fits_name(name, inside)
