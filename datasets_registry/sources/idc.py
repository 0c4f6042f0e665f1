"""All series of a collection of Imaging Data Commons (IDC), object by object from its public buckets.

`POST /v3/cohort/manifest` with {filters: {terms: {collection_id: [..], Modality: [..]}}, page, page_size} answers
{page_size, total_series, series: [{collection_id, PatientID, StudyInstanceUID, SeriesInstanceUID, Modality,
instanceCount, series_aws_url, ..}]}; `series_aws_url` is `s3://BUCKET/CRDC_SERIES_UUID/*`. No login (IDC's user guide,
its server's public source and cloud storage guide, read 2026-11). Bytes come from the bucket: a folder never changes
there, a revised series gets another one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from datasets_registry.sources import s3
from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import ask_json
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.series_place import series_place
from datasets_registry.sources.spec import IdcSource, S3Source
from imaging.errors import BadInput

LOG_IN = "IDC needs no login; look the collection up on portal.imaging.datacommons.cancer.gov"
PAGE_SERIES = 1000
"""Series asked for at once; the service takes up to 5000 and answers with fewer where it has to."""

_FOLDER = re.compile(r"s3://([a-z0-9][a-z0-9.-]+)/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/\*")


def list_files(source: IdcSource, session: Session) -> list[RemoteFile]:
    """Return one file per DICOM object of the collection, series by series in order of patient.

    Raises DownloadFailed where the service does not answer the question that was asked, BadInput for a series whose
    folder does not hold as many objects as the service counts.
    """
    rows = _list_series(source, session)
    return [file for row in sorted(rows, key=_order) for file in _series_files(source, row, session)]


def _order(row: dict[str, Any]) -> tuple[str, str]:
    return str(row.get("PatientID")), str(row.get("SeriesInstanceUID"))


def _list_series(source: IdcSource, session: Session) -> list[dict[str, Any]]:
    """Return the rows of all pages, each of them of this collection and modality."""
    address = f"{session.endpoints.idc}/cohort/manifest"
    terms = {"collection_id": [source.collection]}
    if source.modality is not None:
        terms["Modality"] = [source.modality]
    rows: list[dict[str, Any]] = []
    total, page = 1, 0
    while len(rows) < total:
        question = {"filters": {"terms": terms}, "page": page, "page_size": PAGE_SERIES}
        answer = ask_json(session, Location(address), source.name, LOG_IN, method="POST", body=question)
        try:
            new, total = list(answer["series"]), int(answer["total_series"])
        except (KeyError, TypeError, ValueError):
            raise DownloadFailed(
                source.name, address, "JSON without series and total_series", "the service may have changed"
            ) from None
        if not new:
            break
        rows += new
        page += 1
    if not total:
        raise DownloadFailed(
            source.name, address, f"no series of collection {source.collection!r}", "correct the collection in the card"
        )
    _require_the_answer(source, address, rows, total)
    return rows


def _require_the_answer(source: IdcSource, address: str, rows: list[dict[str, Any]], total: int) -> None:
    """Raise DownloadFailed unless `rows` are all series that were asked for, and no others.

    The service has been known to ignore a filter that it does not understand and to list everything it holds.
    """
    wrong = next((row for row in rows if not _fits(source, row)), None)
    if wrong is not None:
        found = f"a series of {wrong.get('collection_id')!r}, {wrong.get('Modality')}"
        raise DownloadFailed(source.name, address, found, "the service ignored the filter; it may have changed")
    different = len({row.get("SeriesInstanceUID") for row in rows})
    if not len(rows) == different == total:
        found = f"{different} different series in {len(rows)} rows, though {total} were stated"
        raise DownloadFailed(source.name, address, found, "the service changed meanwhile; try again later")


def _fits(source: IdcSource, row: dict[str, Any]) -> bool:
    return row.get("collection_id") == source.collection and source.modality in (None, row.get("Modality"))


def _series_files(source: IdcSource, row: dict[str, Any], session: Session) -> list[RemoteFile]:
    """Return the objects of one series, from the listing of its folder."""
    series, url = str(row.get("SeriesInstanceUID", "")), str(row.get("series_aws_url"))
    place = series_place(
        source.place,
        source.collection,
        patient=str(row.get("PatientID", "")),
        study=str(row.get("StudyInstanceUID", "")),
        series=series,
        remedy=LOG_IN,
    )
    folder = _FOLDER.fullmatch(url)
    if folder is None:
        raise BadInput("unsafe_name", f"series {series}", f"series_aws_url {url!r}", "s3://BUCKET/UUID/*", LOG_IN)
    bucket = session.endpoints.s3.format(bucket=folder[1])
    objects = S3Source(name=f"{source.name}/{series}", bucket=bucket, prefix=f"{folder[2]}/", place=place)
    files = s3.list_files(objects, session)
    stated = row.get("instanceCount")
    if isinstance(stated, int) and len(files) != stated:
        raise BadInput(
            "incomplete_series",
            f"series {series}",
            f"{len(files)} objects in {url}",
            f"{stated}, as the service counts",
            "try again later; if it stays, write to the service's support",
        )
    return [replace(file, source=source) for file in files]
