"""What a result came from, beside the data: the commit of the code, the packages installed, the machine's kind."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

DISTRIBUTION = "ct-label-factory"
ROOT = Path(__file__).resolve().parents[1]
CODE = ("flows", "tasks", "models", "catalog", "datasets_registry", "imaging", "pyproject.toml", "constraints.txt")
"""What a checkout's results depend on; other files may be changed and it still counts as clean."""

REPORTED_PACKAGES = (
    DISTRIBUTION,
    "torch",
    "monai",
    "zarr",
    "zarrs",
    "deltalake",
    "open_clip_torch",
    "lightning",
    "mlflow",
    "prefect",
    "dask",
    "numpy",
    "SimpleITK",
)


@dataclass(frozen=True)
class CodeVersion:
    """Which code ran. commit: of the checkout, or of the repository it was installed from; None where neither is known.

    dirty: whether files of the checkout's code differ from that commit, None without a checkout.
    """

    version: str
    commit: str | None
    dirty: bool | None

    def tags(self) -> dict[str, str | None]:
        """Return the tags of a run; MLflow shows the first one as the run's source version."""
        dirty = None if self.dirty is None else str(self.dirty).lower()
        return {"mlflow.source.git.commit": self.commit, "code_version": self.version, "code_dirty": dirty}


def code_version(root: Path = ROOT) -> CodeVersion:
    """Return the version of the code in `root`: of its checkout, else what the installed distribution knows."""
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    # The code may be installed inside a checkout of something else, whose commit would say nothing.
    if _git(root, "ls-files", "--error-unmatch", "tasks/provenance.py") is None:
        return CodeVersion(version, _installed_commit(), None)
    changes = _git(root, "status", "--porcelain", "--", *CODE)
    return CodeVersion(version, _git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes))


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed_commit() -> str | None:
    """Return the commit that pip wrote down on installing from a repository (PEP 610)."""
    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return None if commit is None else str(commit)


@lru_cache(maxsize=1)
def environment_lock() -> str:
    """Return every installed distribution as `name==version`, one a line and sorted: a requirements file for pip.

    What was installed from a folder or a file is a comment, since its place means nothing elsewhere.
    """
    lines: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        if name is None or name.lower() in lines:  # the first on the path is the one that is imported
            continue
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        pinned = f"{name}=={found.version}"
        lines[name.lower()] = f"# {pinned} (installed from a local place)" if "dir_info" in origin else pinned
    head = f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}\n"
    return head + "".join(f"{line}\n" for _, line in sorted(lines.items()))


def environment() -> dict[str, Any]:
    """Return versions of Python, the platform and the packages that shape a result; no host or user name."""
    packages = {}
    for package in REPORTED_PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "packages": packages,
    }
