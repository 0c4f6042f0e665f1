"""Force what deltalake committed to a local disk: it writes and renames, and leaves the rest to the system.

Without this a power cut within seconds (not a kill) could take commits that were reported already, or leave a log entry
of no bytes, at which the table cannot be opened any more. In an object store an answer means that the bytes are safe.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from datasets_registry.durable import sync

LOG = "_delta_log"


def sync_version(folder: Path, version: int) -> None:
    """Force version `version` of the table in `folder` to the disk: data files first, then the log that names them."""
    entry = folder / LOG / f"{version:020}.json"
    actions = [json.loads(line) for line in entry.read_text(encoding="utf-8").splitlines()]
    for action in actions:
        if "add" in action:
            sync(folder / unquote(action["add"]["path"]))
    sync(folder)
    for path in (entry, entry.with_suffix(".checkpoint.parquet"), entry.with_name("_last_checkpoint")):
        if path.exists():
            sync(path)
    sync(entry.parent)
