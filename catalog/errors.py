"""The errors of this room that callers react to."""

from __future__ import annotations


class LakeDamage(RuntimeError):
    """Stored data is not what its row says: missing, torn, altered. Never read as air or background.

    `case_id` and `file` (relative to the lake's root) say where; the other fields are sentences for people.
    """

    def __init__(self, case_id: str, file: str, found: str, expected: str) -> None:
        super().__init__(case_id, file, found, expected)
        self.case_id = case_id
        self.file = file
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return (
            f"{self.case_id}: {self.file}: found {self.found}, expected {self.expected}; "
            "restore the file from a copy, or ingest the case again"
        )


class LakeUnreachable(ConnectionError):
    """The object store of a lake does not answer, or refuses: nothing is known of the data, least of all damage."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"{url}: {reason}; check that the bucket exists, that AWS_ENDPOINT_URL, AWS_REGION and the credentials "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; for gs:// and az:// those of their tools) are set for this "
            "process, and that they may list, read, write and delete there"
        )
        self.url = url
        self.reason = reason

    def __reduce__(self) -> tuple[type[LakeUnreachable], tuple[str, str]]:
        return (LakeUnreachable, (self.url, self.reason))  # an OSError would be made of its arguments


class WriteFailed(OSError):
    """The system refused a write: no room, no permission, a failing disk. Nothing half-written is visible.

    `errno` is the system's, the message names the place and the bytes; see `catalog/writing.py`.
    """


class AnnotationExists(FileExistsError):
    """An annotation of that name is already stored with other content; annotations are added, never edited."""


class CommitRefused(RuntimeError):
    """A table commit that would contradict what is already committed, or that lost against other writers too often."""
