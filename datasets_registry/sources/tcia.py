"""All series of a TCIA collection through the public NBIA service, one zip a series.

`getSeries?Collection=NAME` lists {PatientID, StudyInstanceUID, SeriesInstanceUID, Modality, ImageCount, ...};
`getImage?SeriesInstanceUID=UID` is a zip that is packed anew each time (TCIA wiki, NBIA Search REST API Guide, read
2026-11). There is no digest, so the count of DICOM files is compared with the listing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import ask, public_url
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.series_place import series_place
from datasets_registry.sources.spec import TciaSource
from imaging.errors import BadInput

LOG_IN = "public collections need no login; look at the collection's page on cancerimagingarchive.net"


def list_files(source: TciaSource, session: Session) -> list[RemoteFile]:
    """Return one file per series of the collection, in order of patient and series."""
    base, series = _list_series(source, session)
    rows = [row for row in series if source.modality is None or row.get("Modality") == source.modality]
    if not rows:
        raise DownloadFailed(
            source.name, base, f"no series of collection {source.collection!r}", "correct the collection in the card"
        )
    return [_one(source, base, row) for row in sorted(rows, key=lambda row: (_patient(row), row["SeriesInstanceUID"]))]


def _list_series(source: TciaSource, session: Session) -> tuple[str, list[dict[str, Any]]]:
    """Return the first base address that answers with a list, and the list."""
    refused: DownloadFailed | None = None
    for base in session.endpoints.nbia:
        parameters = {"Collection": source.collection, "format": "json"}
        try:
            response = ask(session, Location(f"{base}/getSeries"), source.name, LOG_IN, parameters=parameters)
            rows = response.json() if response.content.strip() else []
        except DownloadFailed as error:
            refused = refused or error
            continue
        except ValueError:
            refused = refused or DownloadFailed(source.name, base, "no JSON", "the service may be down")
            continue
        if isinstance(rows, list):
            return base, rows
    raise refused or DownloadFailed(source.name, source.collection, "no service is configured", "set one")


def _one(source: TciaSource, base: str, row: dict[str, Any]) -> RemoteFile:
    patient, study, series = _patient(row), str(row.get("StudyInstanceUID", "")), str(row["SeriesInstanceUID"])
    place = series_place(source.place, source.collection, patient=patient, study=study, series=series, remedy=LOG_IN)
    url = f"{base}/getImage?{urlencode({'SeriesInstanceUID': series})}"
    return RemoteFile(
        name=f"{source.name}/{series}.zip",
        source=source,
        origin=public_url(url),
        locate=lambda: Location(url),
        place=place,
        volatile=True,
        check=_count_check(series, row.get("ImageCount")),
        how_to_log_in=LOG_IN,
    )


def _patient(row: dict[str, Any]) -> str:
    return str(row.get("PatientID") or row.get("PatientId") or "")


def _count_check(series: str, stated: object) -> Callable[[Path], None]:
    """Return a check that the zip holds as many DICOM files as the service counts images."""

    def check(path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                found = sum(name.lower().endswith(".dcm") for name in archive.namelist())
        except zipfile.BadZipFile as error:
            raise BadInput("wrong_kind", f"series {series}", str(error), "a zip of DICOM files", LOG_IN) from None
        if isinstance(stated, int) and found != stated:
            raise BadInput(
                "incomplete_series",
                f"series {series}",
                f"{found} DICOM files",
                f"{stated}, as the service counts",
                "fetch it again later",
            )

    return check
