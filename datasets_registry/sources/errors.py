"""What stops a download: refused or unreachable, to be done by a person, or a passing fault."""

from __future__ import annotations


class DownloadFailed(OSError):
    """A file that could not be fetched; the message names file, address without secrets, reason and remedy."""

    def __init__(self, name: str, address: str, found: str, remedy: str) -> None:
        super().__init__(f"{name}: {address}: {found}; {remedy}")
        self.name = name
        self.found = found


class FilesMissing(FileNotFoundError):
    """Files that a person must fetch, or allow to be fetched; the message lists the steps, one a line."""


class PassingFault(Exception):
    """A fault that another attempt may heal; `wait_s` is how long the server asked to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
