"""`unpack` as callers see it: a process of its own, one rename at the end, a marker, inner archives, kills."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import psutil
import pytest
from archive_samples import contents, seven_zip_of, tar_of, zip_of

from datasets_registry.archives.extract import MARKER
from datasets_registry.archives.limits import Unpacked, UnpackLimits
from datasets_registry.archives.unpack import unpack
from imaging.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
LIMITS = UnpackLimits()
MEMBERS = {"set/a.nii": b"a" * 5000, "set/b.txt": b"bb", "set/._a.nii": b"litter"}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what was unpacked, without the marker."""
    return {name: data for name, data in contents(folder).items() if name != MARKER}


def test_an_archive_becomes_a_folder_with_a_marker(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", MEMBERS)
    told: list[tuple[int, int]] = []
    done = unpack(archive, tmp_path / "raw" / "out", limits=LIMITS, progress=lambda *pair: told.append(pair))
    digest = "".join(subprocess.check_output(["sha256sum", archive], text=True).split()[:1])
    assert done == Unpacked(tmp_path / "raw/out", 2, 5002, 1, (), digest, fresh=True)
    assert files_of(done.folder) == {"set/a.nii": b"a" * 5000, "set/b.txt": b"bb"}
    assert json.loads((done.folder / MARKER).read_text())["sha256"] == digest
    assert list((tmp_path / "raw").iterdir()) == [done.folder]
    assert told[-1] == (archive.stat().st_size, archive.stat().st_size)


def test_a_second_run_of_the_same_archive_does_nothing(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", MEMBERS)
    first = unpack(archive, tmp_path / "out", limits=LIMITS)
    before = (tmp_path / "out/set/a.nii").stat()
    again = unpack(archive, tmp_path / "out", limits=LIMITS)
    assert (again.fresh, again.files, again.bytes, again.litter) == (False, first.files, first.bytes, first.litter)
    assert (tmp_path / "out/set/a.nii").stat() == before


def test_a_folder_of_another_origin_is_left_alone_and_named(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", MEMBERS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("work of years")
    with pytest.raises(FileExistsError, match="choose another folder") as caught:
        unpack(archive, tmp_path / "out", limits=LIMITS)
    assert str(tmp_path / "out") in str(caught.value)
    assert contents(tmp_path / "out") == {"mine": b"work of years"}

    unpack(zip_of(tmp_path / "other.zip", {"x": b"1"}), tmp_path / "out2", limits=LIMITS)
    with pytest.raises(FileExistsError, match=r"was unpacked from other\.zip"):
        unpack(archive, tmp_path / "out2", limits=LIMITS)


def test_an_unpacked_folder_that_lost_a_file_is_not_taken_for_whole(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", MEMBERS)
    unpack(archive, tmp_path / "out", limits=LIMITS)
    (tmp_path / "out/set/b.txt").unlink()
    with pytest.raises(FileExistsError, match="holds 1 files of 5000 bytes, but 2 of 5002 bytes were unpacked"):
        unpack(archive, tmp_path / "out", limits=LIMITS)


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    unpack(zip_of(tmp_path / "set.zip", MEMBERS), tmp_path / "out", limits=LIMITS)
    assert (tmp_path / "out/set/b.txt").read_bytes() == b"bb"


def test_a_refusal_crosses_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {"fine": b"1", "../evil": b"2"})
    with pytest.raises(BadInput) as caught:
        unpack(archive, tmp_path / "raw" / "out", limits=LIMITS)
    assert (caught.value.code, caught.value.where) == ("archive_member", "set.zip, member '../evil'")
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_wrong_digest_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        unpack(zip_of(tmp_path / "set.zip", MEMBERS), tmp_path / "raw" / "out", limits=LIMITS, sha256="0" * 64)
    assert (caught.value.code, caught.value.expected) == ("wrong_digest", "0" * 64)
    assert not (tmp_path / "raw").exists()


def announce_size(archive: Path, size: int) -> None:
    """Make the directory of a zip announce `size` unpacked bytes for every member."""
    data = bytearray(archive.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", data, at + 24, size)
        at = data.find(b"PK\x01\x02", at + 1)
    archive.write_bytes(data)


def test_a_full_disk_is_an_error_of_the_disk_and_not_of_the_data(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free > 900 * 2**30:
        pytest.skip("the disk has room for the 1000 GiB that the archive announces")
    archive = zip_of(tmp_path / "set.zip", {f"{number}": b"1" for number in range(250)})
    announce_size(archive, 2**32 - 2)
    with pytest.raises(OSError, match="make room for") as caught:
        unpack(archive, tmp_path / "raw" / "out", limits=LIMITS)
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_member_shorter_than_announced_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {"x": b"12345"}, zipfile.ZIP_STORED)
    announce_size(archive, 1000)
    with pytest.raises(BadInput, match="5 bytes where 1000 were announced"):
        unpack(archive, tmp_path / "out", limits=LIMITS)
    assert not (tmp_path / "out").exists()


def test_no_rights_to_write_is_told_with_the_path(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        place = Path("/proc/no-such-place/out")
    else:
        place = tmp_path / "closed" / "out"
        place.parent.mkdir(mode=0o500)
    with pytest.raises(OSError) as caught:
        unpack(zip_of(tmp_path / "set.zip", MEMBERS), place, limits=LIMITS)
    assert caught.value.errno in {errno.ENOENT, errno.EACCES}
    assert str(place.parent) in str(caught.value)


def test_decoding_that_needs_more_memory_than_allowed_is_refused(tmp_path: Path) -> None:
    # 32 MB of zeros are some 50 bytes of bzip2, which zipfile expands in one piece
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive, archive.open("x", "w") as member:
        for _ in range(8):
            member.write(bytes(4_000_000))
    with pytest.raises(BadInput) as caught:
        unpack(tmp_path / "a.zip", tmp_path / "out", limits=UnpackLimits(memory_bytes=16_000_000, max_ratio=1e9))
    assert caught.value.code == "archive_limit"
    assert "raise memory_bytes" in caught.value.remedy


def test_inner_archives_become_folders_of_their_name_one_level_deep(tmp_path: Path) -> None:
    deepest = zip_of(tmp_path / "3.zip", {"leaf": b"3"}).read_bytes()
    masks = zip_of(tmp_path / "2.zip", {"MASKS/liver/image_0": b"2", "deepest.zip": deepest}).read_bytes()
    patient = zip_of(tmp_path / "1.zip", {"PATIENT/image_0": b"1", "PATIENT/._image_0": b"x"}).read_bytes()
    notes = tar_of(tmp_path / "4.tgz", {"note.txt": b"4"}, "w:gz").read_bytes()
    members = {"p.1/PATIENT.zip": patient, "p.1/MASKS.zip": masks, "p.1/notes.tar.gz": notes, "p.1/MESHES.zip": b"?"}
    outer = zip_of(tmp_path / "set.zip", members)
    done = unpack(outer, tmp_path / "out", limits=LIMITS, nested=("PATIENT.zip", "MASKS*", "p.1/notes.*"))
    assert files_of(tmp_path / "out") == {
        "p.1/PATIENT/image_0": b"1",
        "p.1/MASKS/MASKS/liver/image_0": b"2",
        "p.1/MASKS/deepest.zip": deepest,
        "p.1/notes/note.txt": b"4",
        "p.1/MESHES.zip": b"?",
    }
    assert done.nested == ("p.1/MASKS.zip", "p.1/PATIENT.zip", "p.1/notes.tar.gz")
    assert (done.files, done.litter) == (5, 1)
    assert done.bytes == 1 + 1 + len(deepest) + 1 + 1
    assert unpack(outer, tmp_path / "out", limits=LIMITS, nested=("PATIENT.zip", "MASKS*", "p.1/notes.*")) == Unpacked(
        done.folder, done.files, done.bytes, done.litter, done.nested, done.sha256, fresh=False
    )
    with pytest.raises(FileExistsError, match="inner archives"):
        unpack(outer, tmp_path / "out", limits=LIMITS)


def test_a_hostile_inner_archive_refuses_the_whole(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "in.zip", {"../../evil": b"1"}).read_bytes()
    outer = zip_of(tmp_path / "set.zip", {"a/in.zip": inner, "a/b": b"2"})
    with pytest.raises(BadInput) as caught:
        unpack(outer, tmp_path / "raw" / "out", limits=LIMITS, nested=("*.zip",))
    assert caught.value.where == "set.zip, inner archive 'a/in.zip', member '../../evil'"
    assert list((tmp_path / "raw").iterdir()) == []


def test_an_inner_archive_beside_a_folder_of_its_name_is_refused(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "in.zip", {"x": b"1"}).read_bytes()
    outer = zip_of(tmp_path / "set.zip", {"a/in.zip": inner, "a/in/y": b"2"})
    with pytest.raises(BadInput, match="already called in"):
        unpack(outer, tmp_path / "out", limits=LIMITS, nested=("*.zip",))


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import psutil
    from datasets_registry.archives.limits import UnpackLimits
    from datasets_registry.archives.unpack import unpack

    def kill(done, total):
        for victim in ([os.getpid()] if sys.argv[3] == "parent" else psutil.Process().children()):
            os.kill(victim if isinstance(victim, int) else victim.pid, signal.SIGKILL)

    unpack(Path(sys.argv[1]), Path(sys.argv[2]), limits=UnpackLimits(), progress=kill)
"""


def run_killed(archive: Path, folder: Path, who: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(archive), str(folder), who]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("kind", ["zip", "7z"])
def test_a_run_killed_in_the_middle_leaves_nothing_visible_and_the_next_one_is_clean(kind: str, tmp_path: Path) -> None:
    members = {f"set/{number:04}.txt": os.urandom(2000) for number in range(40)}
    archive = (zip_of if kind == "zip" else seven_zip_of)(tmp_path / "set.archive", members)
    killed = run_killed(archive, tmp_path / "out", "parent")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.unpacking").is_dir()
    (tmp_path / ".out.unpacking" / "leftover").write_text("of the killed run")
    done = unpack(archive, tmp_path / "out", limits=LIMITS)
    assert done.fresh
    assert files_of(tmp_path / "out") == members
    assert {path.name for path in tmp_path.iterdir()} == {"set.archive", "out"}


def test_a_killed_worker_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {f"{number}": os.urandom(2000) for number in range(400)})
    killed = run_killed(archive, tmp_path / "out", "worker")
    assert "ChildProcessError: set.zip: the unpacking process was killed by signal 9" in killed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_two_processes_unpack_once(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {f"{number}": os.urandom(2000) for number in range(40)})
    program = (
        "import sys; from pathlib import Path\n"
        "from datasets_registry.archives.limits import UnpackLimits\n"
        "from datasets_registry.archives.unpack import unpack\n"
        "print(unpack(Path(sys.argv[1]), Path(sys.argv[2]), limits=UnpackLimits()).fresh)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(archive), str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert sorted(one.communicate(timeout=60)[0].strip() for one in both) == ["False", "True"]
    assert {path.name for path in tmp_path.iterdir()} == {"set.zip", "out"}


def test_a_decoder_that_stalls_is_given_up(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", MEMBERS)
    with pytest.raises(BadInput) as caught:
        unpack(archive, tmp_path / "out", limits=UnpackLimits(stall_seconds=0.01))
    assert caught.value.code == "archive_limit"
    assert "no byte read for 0.01 s" in caught.value.found
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]
    assert not [child for child in psutil.Process().children() if "archives.worker" in " ".join(child.cmdline())]


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(done: int, total: int) -> None:
        for child in psutil.Process().children():
            seen.append(" ".join(child.cmdline()) if child.status() != psutil.STATUS_ZOMBIE else "")

    archive = seven_zip_of(tmp_path / "a.7z", MEMBERS, password="s3cret")
    unpack(archive, tmp_path / "out", limits=LIMITS, password="s3cret", progress=look)
    assert any("archives.worker" in line for line in seen)
    assert not any("s3cret" in line for line in seen)
