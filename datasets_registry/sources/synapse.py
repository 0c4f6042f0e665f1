"""Files of Synapse with a personal access token, through its REST services.

`POST /repo/v1/entity/children` lists a folder, `GET /repo/v1/entity/ID` names the file handle, and
`POST /file/v1/fileHandle/batch` returns {fileHandle: {contentMd5, contentSize}, preSignedURL, failureCode}
(rest-docs.synapse.org and the open Python client, read 2026-11). Signed addresses live for seconds to minutes, so a
new one is asked for at every attempt.
"""

from __future__ import annotations

from typing import Any

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import ask_json
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import SynapseSource

DEPTH = 3
"""Folders inside folders that are searched for the file."""


def log_in(source: SynapseSource) -> str:
    """Return how a person gets access."""
    page = source.page or f"https://www.synapse.org/Synapse:{source.entity or source.folder}"
    return (
        f"sign in at {page}, join the project and accept its terms, make a personal access token with the permissions "
        "view and download, and set CTFACTORY_SYNAPSE_TOKEN"
    )


def list_files(source: SynapseSource, session: Session) -> list[RemoteFile]:
    """Return the file with size and MD5 as Synapse states them. The session must hold a token."""
    entity = source.entity or _find(source, session, str(source.folder), DEPTH)
    if entity is None:
        raise DownloadFailed(
            source.name, f"synapse:{source.folder}", f"no file {source.name!r} in the folder", log_in(source)
        )
    described = _ask(source, session, "GET", f"{session.endpoints.synapse_repo}/entity/{entity}")
    handle_id = described.get("dataFileHandleId")
    if not handle_id:
        raise DownloadFailed(source.name, f"synapse:{entity}", "the entity is no file", "correct the id in the card")
    handle = _handle(source, session, entity, str(handle_id)).get("fileHandle", {})
    return [
        RemoteFile(
            name=source.name,
            source=source,
            origin=f"synapse:{entity}",
            locate=lambda: Location(_handle(source, session, entity, str(handle_id))["preSignedURL"]),
            bytes=source.bytes or handle.get("contentSize"),
            md5=source.md5 or handle.get("contentMd5"),
            sha256=source.sha256,
            place=source.place,
            volatile=source.volatile,
            how_to_log_in=log_in(source),
        )
    ]


def _ask(source: SynapseSource, session: Session, method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {session.synapse_token}"}
    return ask_json(session, Location(url, headers), source.name, log_in(source), method=method, body=body)


def _find(source: SynapseSource, session: Session, folder: str, depth: int) -> str | None:
    """Return the id of the file called `source.name` in `folder` or in a folder of it."""
    folders: list[str] = []
    page: str | None = None
    while True:
        body = {"parentId": folder, "includeTypes": ["file", "folder"], "nextPageToken": page}
        answer = _ask(source, session, "POST", f"{session.endpoints.synapse_repo}/entity/children", body)
        for child in answer.get("page", []):
            is_folder = str(child.get("type", "")).endswith("Folder")
            if is_folder:
                folders.append(str(child["id"]))
            elif child.get("name") == source.name:
                return str(child["id"])
        page = answer.get("nextPageToken")
        if page is None:
            break
    if depth > 1:
        for inner in folders:
            found = _find(source, session, inner, depth - 1)
            if found is not None:
                return found
    return None


def _handle(source: SynapseSource, session: Session, entity: str, handle_id: str) -> dict[str, Any]:
    body = {
        "includeFileHandles": True,
        "includePreSignedURLs": True,
        "requestedFiles": [
            {"fileHandleId": handle_id, "associateObjectId": entity, "associateObjectType": "FileEntity"}
        ],
    }
    answer = _ask(source, session, "POST", f"{session.endpoints.synapse_file}/fileHandle/batch", body)
    result: dict[str, Any] = (answer.get("requestedFiles") or [{}])[0]
    if result.get("failureCode") or not result.get("preSignedURL"):
        code = result.get("failureCode", "no address")
        raise DownloadFailed(source.name, f"synapse:{entity}", str(code), log_in(source))
    return result
