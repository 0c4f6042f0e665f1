"""Which adapter serves which kind of source."""

from __future__ import annotations

from datasets_registry.sources import gdrive, https, idc, s3, synapse, tcia, zenodo
from datasets_registry.sources.remote import RemoteFile, Session
from datasets_registry.sources.spec import (
    GdriveSource,
    HttpsSource,
    IdcSource,
    ManualSource,
    S3Source,
    Source,
    SynapseSource,
    TciaSource,
    ZenodoSource,
)


def list_files(source: Source, session: Session) -> list[RemoteFile]:
    """Return the files that `source` stands for, asking its service where that is needed.

    Raises DownloadFailed when the service refuses, BadInput when it describes another file than the card. A manual
    source has no files to list; `steps` says what a person does.
    """
    match source:
        case HttpsSource():
            return https.list_files(source, session)
        case ZenodoSource():
            return zenodo.list_files(source, session)
        case TciaSource():
            return tcia.list_files(source, session)
        case IdcSource():
            return idc.list_files(source, session)
        case S3Source():
            return s3.list_files(source, session)
        case SynapseSource():
            return synapse.list_files(source, session)
        case GdriveSource():
            return gdrive.list_files(source, session)
        case ManualSource():
            return []
