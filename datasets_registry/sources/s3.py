"""Objects of a public bucket, without an account: a key is an address, a prefix is listed with ListObjectsV2.

Shape of the listing (Amazon S3 API reference, ListObjectsV2): ListBucketResult with Contents (Key, Size, ETag),
IsTruncated and NextContinuationToken. An ETag is no digest of the content in general and is not taken for one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import PurePosixPath
from urllib.parse import quote

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import ask, public_url
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import S3Source

LOG_IN = "the bucket does not allow public reading (any more); look at the data set's page"


def list_files(source: S3Source, session: Session) -> list[RemoteFile]:
    """Return the object, or every object below the prefix, named by its path below it."""
    if source.key is not None:
        return [_one(source, source.key, source.name, source.bytes)]
    prefix = source.prefix or ""
    found = []
    for key, size in _list_objects(source, prefix, session):
        below = PurePosixPath(key.removeprefix(prefix).lstrip("/"))
        if ".." in below.parts or not below.parts:
            raise DownloadFailed(
                source.name, source.bucket, f"object name {key!r}", "a name must stay below the prefix"
            )
        found.append(_one(source, key, f"{source.name}/{below}", size))
    if not found:
        raise DownloadFailed(
            source.name, source.bucket, f"no object below {prefix!r}", "correct the prefix in the card"
        )
    return found


def _one(source: S3Source, key: str, name: str, size: int | None) -> RemoteFile:
    url = f"{source.bucket.rstrip('/')}/{quote(key)}"
    whole = source.key is not None
    return RemoteFile(
        name=name,
        source=source,
        origin=public_url(url),
        locate=lambda: Location(url),
        bytes=size,
        md5=source.md5 if whole else None,
        sha256=source.sha256 if whole else None,
        place=source.place
        if whole or source.place is None
        else f"{source.place}/{name.removeprefix(source.name + '/')}",
        volatile=source.volatile,
        how_to_log_in=LOG_IN,
    )


def _list_objects(source: S3Source, prefix: str, session: Session) -> list[tuple[str, int]]:
    objects: list[tuple[str, int]] = []
    token: str | None = None
    while True:
        parameters = {"list-type": "2", "prefix": prefix}
        if token is not None:
            parameters["continuation-token"] = token
        location = Location(source.bucket.rstrip("/") + "/")
        text = ask(session, location, source.name, LOG_IN, parameters=parameters).text
        # A listing has no document type; one that has may hold expanding entities.
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DownloadFailed(source.name, source.bucket, "a page instead of a listing", LOG_IN)
        try:
            listing = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise DownloadFailed(source.name, source.bucket, f"no listing ({error})", LOG_IN) from None
        space = listing.tag.partition("}")[0] + "}" if listing.tag.startswith("{") else ""
        for content in listing.iter(f"{space}Contents"):
            key, size = content.findtext(f"{space}Key", ""), content.findtext(f"{space}Size", "0")
            if not key.endswith("/"):
                objects.append((key, int(size)))
        token = listing.findtext(f"{space}NextContinuationToken")
        if listing.findtext(f"{space}IsTruncated") != "true" or not token:
            return objects
