"""What of a stored thing is not as its manifest says."""

from __future__ import annotations

from catalog.errors import LakeDamage, LakeUnreachable
from catalog.files import Files
from catalog.manifest import METADATA_NAME, Manifest


def find_damage(case_id: str, files: Files, case_path: str, manifest: Manifest, read_data: bool) -> list[LakeDamage]:
    """Return what differs between `manifest` and the files of the case at `case_path`; an empty list is a sound case.

    read_data: also compare the SHA-256 of arrays; without it, lengths of all files and the SHA-256 of the small
    `zarr.json` ones are compared.
    """
    damages = []
    sizes = files.sizes([f"{case_path}/{relative}" for relative in manifest.files])
    for relative, entry in manifest.files.items():
        name = f"{case_path}/{relative}"
        size = sizes.get(name)
        try:
            if isinstance(size, OSError):
                raise size
            if size is None:
                raise FileNotFoundError
            if size != entry.size:
                damages.append(LakeDamage(case_id, name, f"{size} bytes", f"{entry.size} bytes"))
            elif (name.endswith(f"/{METADATA_NAME}") or read_data) and (found := files.sha256(name)) != entry.sha256:
                damages.append(LakeDamage(case_id, name, f"SHA-256 {found}", f"SHA-256 {entry.sha256}"))
        except FileNotFoundError:
            damages.append(LakeDamage(case_id, name, "no file", f"{entry.size} bytes"))
        except LakeUnreachable:
            raise
        except OSError as error:
            damages.append(LakeDamage(case_id, name, f"unreadable ({error.strerror})", f"{entry.size} bytes"))
    return damages
