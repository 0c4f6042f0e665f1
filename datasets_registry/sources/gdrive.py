"""Shared files of Google Drive without an account or a key.

`/uc?export=download&id=ID` serves a small file at once, and for a large one a page whose form `download-form` (hidden
inputs id, export, confirm, uuid) leads to it. `/embeddedfolderview?id=ID` lists a shared folder as links to
`/file/d/ID/` with the names in `flip-entry-title`. Neither is a documented interface (seen in public code, 2026-11):
when a page reads otherwise, the error says so and a person fetches the file.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin

import httpx

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.host_slots import host_slot
from datasets_registry.sources.http import ask, public_url, refuse_status, transport_fault, with_retries
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import GdriveSource

PAGE_BYTES = 2 * 2**20


def log_in(source: GdriveSource) -> str:
    """Return how a person gets the file."""
    page = f"see {source.page}, then " if source.page else ""
    return f"{page}open {browser_address(source)} in a browser and place the file by hand"


def browser_address(source: GdriveSource) -> str:
    """Return the address that a person opens."""
    key = f"?resourcekey={source.resource_key}" if source.resource_key else ""
    kind = f"file/d/{source.file}/view" if source.file else f"drive/folders/{source.folder}"
    return f"https://drive.google.com/{kind}{key}"


def list_files(source: GdriveSource, session: Session) -> list[RemoteFile]:
    """Return the file; one given by its folder is looked up there by name."""
    file = source.file or _find(source, session)
    return [
        RemoteFile(
            name=source.name,
            source=source,
            origin=f"gdrive:{file}",
            locate=lambda: _locate(source, session, file),
            bytes=source.bytes,
            md5=source.md5,
            sha256=source.sha256,
            place=source.place,
            volatile=source.volatile,
            how_to_log_in=log_in(source),
        )
    ]


def _locate(source: GdriveSource, session: Session, file: str) -> Location:
    """Return the address that serves the bytes, past the page that warns of large files."""
    parameters = {"export": "download", "id": file}
    if source.file and source.resource_key:
        parameters["resourcekey"] = source.resource_key
    url = f"{session.endpoints.gdrive}/uc?{urlencode(parameters)}"

    def attempt() -> Location:
        try:
            with host_slot(session, url), session.client.stream("GET", url) as response:
                if response.is_error:
                    refuse_status(response, source.name, log_in(source))
                if not response.headers.get("Content-Type", "").startswith("text/html"):
                    return Location(url)
                page = b""
                for block in response.iter_bytes():
                    page += block
                    if len(page) > PAGE_BYTES:
                        break
                return Location(_confirmed(source, page.decode(errors="replace"), str(response.url)))
        except httpx.TransportError as error:
            raise transport_fault(error, session.options.timeout_s) from None

    return with_retries(session, source.name, public_url(url), attempt, lambda: False)


def _confirmed(source: GdriveSource, page: str, address: str) -> str:
    reader = _Form()
    reader.feed(page)
    if reader.action is not None:
        return urljoin(address, f"{reader.action}?{urlencode(reader.inputs)}")
    if re.search(r"quota|too many users", page, re.IGNORECASE):
        found, remedy = "Google's limit of downloads for this file is used up", "try again in a day, or "
    elif "accounts.google.com" in page or "ServiceLogin" in address:
        found, remedy = "HTML, a login page: the file is not shared with everyone", ""
    else:
        found, remedy = "HTML without the download form that was expected", ""
    raise DownloadFailed(source.name, public_url(address), found, remedy + log_in(source))


def _find(source: GdriveSource, session: Session) -> str:
    parameters = {"id": str(source.folder)}
    if source.resource_key:
        parameters["resourcekey"] = source.resource_key
    location = Location(f"{session.endpoints.gdrive}/embeddedfolderview")
    page = ask(session, location, source.name, log_in(source), parameters=parameters).text
    reader = _Folder()
    reader.feed(page)
    same = [file for name, file in reader.files if _plain(name) == _plain(source.name)]
    if len(same) == 1:
        return same[0]
    names = sorted(name for name, _ in reader.files)
    raise DownloadFailed(
        source.name,
        f"gdrive:{source.folder}",
        f"{len(same)} files of that name in the folder, which lists {names}",
        log_in(source),
    )


def _plain(name: str) -> str:
    """Return a name for comparison: people write spaces and underscores alike."""
    return re.sub(r"[\s_]+", "_", name.strip()).lower()


class _Form(HTMLParser):
    """Reads action and hidden inputs of the form `download-form`."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the form's action, then its inputs that have a name."""
        found = dict(attrs)
        if tag == "form" and found.get("id") == "download-form":
            self.action, self._inside = found.get("action"), True
        elif tag == "input" and self._inside and found.get("name"):
            self.inputs[str(found["name"])] = found.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        """Leave the form."""
        if tag == "form":
            self._inside = False


class _Folder(HTMLParser):
    """Reads (name, id) of every file in a folder's page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[tuple[str, str]] = []
        self._id: str | None = None
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the id from a file's link, and expect its name in the title that follows."""
        found = dict(attrs)
        link = re.search(r"/file/d/([A-Za-z0-9_-]+)", found.get("href") or "") if tag == "a" else None
        if link is not None:
            self._id = link[1]
        self._in_title = "flip-entry-title" in (found.get("class") or "")

    def handle_data(self, data: str) -> None:
        """Take a file's name."""
        if self._in_title and self._id is not None and data.strip():
            self.files.append((data.strip(), self._id))
            self._id, self._in_title = None, False
