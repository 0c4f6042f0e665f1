"""Files that a person put into the download folder: found, hashed, compared with card and ledger, and recorded."""

from __future__ import annotations

from pathlib import Path

from datasets_registry.sources.content import HEAD_BYTES, require_content
from datasets_registry.sources.ledger import Ledger
from datasets_registry.sources.partial import hash_file
from datasets_registry.sources.spec import HttpsSource, IdcSource, S3Source, Source, TciaSource
from imaging.errors import BadInput


def expands(source: Source) -> bool:
    """Return whether `source` stands for many files, whose names only its adapter knows."""
    return (
        isinstance(source, TciaSource | IdcSource)
        or (isinstance(source, HttpsSource) and bool(source.cases))
        or (isinstance(source, S3Source) and source.prefix is not None)
    )


def placed_files(downloads: Path, name: str) -> list[Path]:
    """Return the file `name`, or every file of the folder `name` that is not hidden; empty where none is."""
    path = downloads / name
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def require_placed(source: Source, name: str, path: Path, ledger: Ledger) -> bool:
    """Return whether `path` was in the ledger, unchanged; else check it and record it.

    Raises BadInput for a web page, another kind of file, or a size or digest other than the card's or the ledger's;
    the file is left where the person put it.
    """
    if ledger.is_known(name, path):
        return True
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    require_content(name, head, str(path), "", "sign in first, fetch the file again and replace this one")
    digests = hash_file(path)
    whole = name == source.name
    for field in ("bytes", "md5", "sha256") if whole or expands(source) else ():
        expected, found = getattr(source, field), getattr(digests, field)
        if expected is not None and expected != found:
            raise BadInput(
                "wrong_digest",
                str(path),
                f"{field} {found} ({digests.bytes} bytes)",
                f"{field} {expected}",
                "the file is cut or another one than the card describes; fetch it again and replace it",
            )
    ledger.require_same(name, digests)
    ledger.record(name, path, digests, how="placed", url=f"file:{name}", etag=None, volatile=source.volatile)
    return False
