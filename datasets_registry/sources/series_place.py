"""Where the files of a DICOM series belong below the reader's root, from ids that a service states."""

from __future__ import annotations

import re

from imaging.errors import BadInput

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def series_place(place: str | None, collection: str, *, patient: str, study: str, series: str, remedy: str) -> str:
    """Return `place` with {patient}, {study} and {series} filled in; all three as folders where it is None.

    Raises BadInput for an id that is no plain file name: it comes from outside and becomes part of a path.
    """
    for field, text in (("PatientID", patient), ("StudyInstanceUID", study), ("SeriesInstanceUID", series)):
        if not _PLAIN.fullmatch(text):
            raise BadInput("unsafe_name", collection, f"{field} {text!r}", "letters, digits and . _ -", remedy)
    return (place or "{patient}/{study}/{series}").format(patient=patient, study=study, series=series)
