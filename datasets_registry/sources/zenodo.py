"""Files of a Zenodo record, through its public REST API.

Shape of `GET /api/records/ID` (developers.zenodo.org and stored answers, read 2026-11): `files` is a list of
{key, size, checksum: "md5:...", links: {self: ".../content"}}; InvenioRDM's own form keeps them under `entries`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import ask_json, public_url
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import ZenodoSource
from imaging.errors import BadInput

LOG_IN = "the record may be restricted: open it in a browser, request access, and place the file by hand"


def list_files(source: ZenodoSource, session: Session) -> list[RemoteFile]:
    """Return the file with size and MD5 as the record states them, after comparing them with the card."""
    wanted = source.file or source.name
    address = f"{session.endpoints.zenodo}/records/{source.record}"
    entries = _entries(ask_json(session, Location(address), source.name, LOG_IN))
    entry = entries.get(wanted)
    if entry is None:
        raise DownloadFailed(
            source.name, address, f"no file {wanted!r}, only {sorted(entries)}", "correct the record in the card"
        )
    size = entry.get("size")
    md5 = str(entry.get("checksum", "")).removeprefix("md5:") or None
    _require_agreement(source, address, size if isinstance(size, int) else None, md5)
    links = entry.get("links", {})
    url = links.get("content") or links.get("self") or f"{address}/files/{quote(wanted)}/content"
    return [
        RemoteFile(
            name=source.name,
            source=source,
            origin=public_url(url),
            locate=lambda: Location(url),
            bytes=source.bytes or (size if isinstance(size, int) else None),
            md5=source.md5 or (md5 if md5 is not None and len(md5) == 32 else None),
            sha256=source.sha256,
            place=source.place,
            volatile=source.volatile,
            how_to_log_in=LOG_IN,
        )
    ]


def _entries(record: Any) -> dict[str, dict[str, Any]]:
    files = record.get("files", []) if isinstance(record, dict) else []
    if isinstance(files, dict):
        files = files.get("entries", [])
    if isinstance(files, dict):
        return {str(name): {"key": name, **entry} for name, entry in files.items()}
    return {str(entry.get("key")): entry for entry in files}


def _require_agreement(source: ZenodoSource, address: str, size: int | None, md5: str | None) -> None:
    """Raise BadInput, before a byte is fetched, when record and card describe different files."""
    for field, found, expected in (("bytes", size, source.bytes), ("md5", md5, source.md5)):
        if found is not None and expected is not None and found != expected:
            raise BadInput(
                "changed_upstream",
                f"{source.name} in {address}",
                f"{field} {found}",
                f"{field} {expected}, as in the card",
                "the record changed; look at its page, and change the card only for a reason you can name",
            )
