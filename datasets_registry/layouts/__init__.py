"""How a raw folder becomes cases: one reader module for each kind of file layout."""

from datasets_registry.layouts.cases import CaseFiles, Listing, NoCasesFound, RawCase, Reader, raw_digest
from datasets_registry.layouts.registry import reader_for

__all__ = ["CaseFiles", "Listing", "NoCasesFound", "RawCase", "Reader", "raw_digest", "reader_for"]
