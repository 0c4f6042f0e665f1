"""Plain addresses, one file or one per case."""

from __future__ import annotations

from datasets_registry.sources.http import public_url
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import HttpsSource


def list_files(source: HttpsSource, session: Session) -> list[RemoteFile]:  # noqa: ARG001 - one form for all adapters
    """Return the file, or one file for each case."""
    if source.cases:
        return [_one(source, case) for case in source.cases]
    return [_one(source, None)]


def _one(source: HttpsSource, case: str | None) -> RemoteFile:
    def fill(text: str) -> str:
        return text if case is None else text.replace("{case}", case)

    url = fill(source.url)
    return RemoteFile(
        name=fill(source.name),
        source=source,
        origin=public_url(url),
        locate=lambda: Location(url),
        bytes=source.bytes,
        md5=source.md5,
        sha256=source.sha256,
        place=None if source.place is None else fill(source.place),
        volatile=source.volatile,
    )
