"""The one exception that sends a case to quarantine instead of into the lake."""

from __future__ import annotations


class BadInput(ValueError):
    """A file or value that must not enter the lake; it says where, what was found, what was expected, what to do.

    `code` is stable and may be matched by callers; the other fields are sentences for people.
    """

    def __init__(self, code: str, where: str, found: str, expected: str, remedy: str) -> None:
        super().__init__(code, where, found, expected, remedy)
        self.code = code
        self.where = where
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}; {self.remedy}"

    def record(self) -> dict[str, str]:
        """Return the same statement as one flat record, for machines."""
        return {
            "code": self.code,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }
