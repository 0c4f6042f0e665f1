"""Fetching a card from a local server into the raw zone: once, twice, with a person in between, and after faults."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from source_server import Resource, Scripted, imitate_idc, md5, serving, sha256

from datasets_registry.sources.errors import DownloadFailed, FilesMissing
from datasets_registry.sources.remote import Endpoints
from imaging.errors import BadInput
from tasks.fetch import FetchReport, fetch
from tasks.progress import ByteProgress, listening
from tasks.settings import Settings

CARD: dict[str, Any] = {
    "id": "tiny",
    "title": "A tiny set",
    "role": "train",
    "access": "open",
    "licence": {"spdx": "CC-BY-4.0", "non_commercial": False},
    "citation": {"short": None, "doi": None},
    "landing_page": "https://example.org/tiny",
    "layout": {
        "reader": "nifti_pairs",
        "tree": "images/N.nii.gz",
        "image_glob": "**/*.nii.gz",
        "case_id_regex": "(\\d)",
    },
    "label_origin": None,
}


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return packed.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


IMAGES = zipped(Set__images__1=b"one", Set__images__2=b"two")
LABELS = tarred("labelsTs/1", b"label")


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as running:
        running.resources["/images.zip"] = Resource(IMAGES)
        running.resources["/labels.tar"] = Resource(LABELS)
        running.resources["/list.csv"] = Resource(b"a,b\n")
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws", download_retries=2, download_timeout_s=2)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv("CTFACTORY_CARDS", str(folder))

    def write(*sources: dict[str, Any], **fields: Any) -> None:
        (folder / "tiny.yaml").write_text(yaml.safe_dump({**CARD, **fields, "sources": list(sources)}))

    return write


def https(server: Scripted, name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "https", "name": name, "url": f"{server.url}/{name}", **fields}


def tree(report: FetchReport) -> dict[str, bytes]:
    return {
        path.relative_to(report.root).as_posix(): path.read_bytes()
        for path in sorted(report.root.rglob("*"))
        if path.is_file()
    }


def test_files_are_fetched_unpacked_and_placed(server: Scripted, settings: Settings, card: Any) -> None:
    card(
        https(server, "images.zip", sha256=sha256(IMAGES)),
        https(server, "labels.tar", place="Set/labels"),
        https(server, "list.csv"),
        https(server, "absent.zip", needed=False),
    )
    report = fetch("tiny", settings)
    assert tree(report) == {
        "Set/images/1": b"one",
        "Set/images/2": b"two",
        "Set/labels/1": b"label",  # the folder labelsTs that wraps it is dropped
        "list.csv": b"a,b\n",
    }
    assert report.root == settings.raw_folder / "tiny" / "unpacked"
    assert [(file.name, file.outcome) for file in report.files] == [
        ("images.zip", "downloaded"),
        ("labels.tar", "downloaded"),
        ("list.csv", "downloaded"),
    ]
    lines = (settings.raw_folder / "tiny" / "downloads" / "ledger.jsonl").read_text().splitlines()
    entries = {entry["name"]: entry for entry in map(json.loads, lines)}
    assert entries["labels.tar"]["sha256"] == sha256(LABELS)
    assert entries["labels.tar"]["url"] == f"{server.url}/labels.tar"


def test_second_run_asks_no_server_and_touches_nothing(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip"), https(server, "list.csv", note="reworded later"))
    first = fetch("tiny", settings)
    before = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    asked = len(server.asked)
    card(https(server, "images.zip"), https(server, "list.csv", note="reworded"))
    second = fetch("tiny", settings)
    assert second.nothing_to_do
    assert second.ready == ("images.zip", "list.csv")
    assert len(server.asked) == asked
    assert {path: path.stat().st_mtime_ns for path in second.root.rglob("*")} == before


def test_downloads_may_be_deleted_once_unpacked_and_unpacked_files_come_back(
    server: Scripted, settings: Settings, card: Any
) -> None:
    card(https(server, "images.zip"))
    report = fetch("tiny", settings)
    zone = settings.raw_folder / "tiny"
    (zone / "downloads" / "images.zip").rename(zone / "aside.zip")
    assert fetch("tiny", settings).nothing_to_do
    (zone / "aside.zip").rename(zone / "downloads" / "images.zip")
    whole = tree(report)
    shutil.rmtree(report.root)
    asked = len(server.asked)
    again = fetch("tiny", settings)
    assert tree(again) == whole
    assert [file.outcome for file in again.files] == ["known"]
    assert len(server.asked) == asked


def test_source_that_changed_stops_with_both_digests(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip"))
    fetch("tiny", settings)
    zone = settings.raw_folder / "tiny"
    (zone / "downloads" / "images.zip").unlink()
    (zone / "unpacked.json").unlink()
    other = zipped(Set__images__1=b"changed")
    server.resources["/images.zip"] = Resource(other)
    with pytest.raises(BadInput) as caught:
        fetch("tiny", settings)
    assert sha256(other) in caught.value.found
    assert sha256(IMAGES) in caught.value.expected
    assert [path.name for path in (zone / "downloads").iterdir()] == ["ledger.jsonl"]


def test_a_person_is_asked_before_anything_is_downloaded_then_the_same_call_goes_on(
    server: Scripted, settings: Settings, card: Any
) -> None:
    manual = {
        "kind": "manual",
        "name": "labels.tar",
        "page": "https://example.org/form",
        "access": "application",
        "sha256": sha256(LABELS),
        "steps": ["choose release 2"],
    }
    card(https(server, "images.zip"), manual)
    with pytest.raises(FilesMissing) as caught:
        fetch("tiny", settings)
    told = str(caught.value)
    downloads = settings.raw_folder / "tiny" / "downloads"
    for words in (
        "1. open https://example.org/form",
        "licence: CC-BY-4.0",
        "apply there",
        "choose release 2",
        str(downloads),
        "labels.tar",
        sha256(LABELS),
        "run the same command again",
    ):
        assert words in told
    assert server.asked == []
    (downloads / "labels (1).tar").write_bytes(LABELS)
    with pytest.raises(FilesMissing, match=r"under other names: labels \(1\).tar"):
        fetch("tiny", settings)
    (downloads / "labels (1).tar").rename(downloads / "labels.tar")
    report = fetch("tiny", settings)
    assert [(file.name, file.outcome) for file in report.files] == [
        ("images.zip", "downloaded"),
        ("labels.tar", "placed"),
    ]
    assert "labelsTs/1" in tree(report)


def test_placed_file_with_another_digest_is_refused_and_left_alone(
    server: Scripted, settings: Settings, card: Any
) -> None:
    card({"kind": "manual", "name": "labels.tar", "md5": md5(b"something else")})
    downloads = settings.raw_folder / "tiny" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "labels.tar").write_bytes(LABELS)
    with pytest.raises(BadInput, match=md5(LABELS)):
        fetch("tiny", settings)
    assert (downloads / "labels.tar").read_bytes() == LABELS


def test_placed_folder_keeps_its_name(settings: Settings, card: Any) -> None:
    card({"kind": "manual", "name": "OrganSegmentations"})
    placed = settings.raw_folder / "tiny" / "downloads" / "OrganSegmentations" / "volume-0.bin"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(b"voxels")
    assert tree(fetch("tiny", settings)) == {"OrganSegmentations/volume-0.bin": b"voxels"}


def test_registration_is_a_persons_act_that_a_setting_states(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip", access="registration"))
    with pytest.raises(FilesMissing, match=r"CTFACTORY_TERMS_ACCEPTED='\[\"tiny\"\]'"):
        fetch("tiny", settings)
    accepted = Settings(workspace=settings.workspace, terms_accepted=("tiny",))
    assert "Set/images/1" in tree(fetch("tiny", accepted))


def test_synapse_without_a_token_says_how_to_get_one(settings: Settings, card: Any) -> None:
    card({"kind": "synapse", "name": "RawData.zip", "folder": "syn1", "access": "registration"})
    with pytest.raises(FilesMissing, match="CTFACTORY_SYNAPSE_TOKEN"):
        fetch("tiny", settings)


def test_encrypted_archive_needs_its_password_first(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip", encrypted=True, note="It is printed in the README."))
    with pytest.raises(FilesMissing, match=r"CTFACTORY_ARCHIVE_PASSWORDS='\{\"tiny\".*printed in the README"):
        fetch("tiny", settings)
    assert server.asked == []


def test_secrets_are_in_no_representation_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTFACTORY_SYNAPSE_TOKEN", "hush-1")
    monkeypatch.setenv("CTFACTORY_ARCHIVE_PASSWORDS", '{"word": "hush-2"}')
    settings = Settings(workspace=tmp_path)
    assert "hush" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    assert settings.archive_passwords["word"].get_secret_value() == "hush-2"


def test_one_file_that_fails_lets_the_others_arrive_and_all_failures_are_told(
    server: Scripted, settings: Settings, card: Any
) -> None:
    card(https(server, "images.zip"), https(server, "gone.zip"), https(server, "lost.zip"))
    with pytest.raises(OSError, match=r"2 of 3 files.*\n.*gone.zip.*404.*\n.*lost.zip.*404"):
        fetch("tiny", settings)
    zone = settings.raw_folder / "tiny"
    assert (zone / "downloads" / "images.zip").read_bytes() == IMAGES
    assert not (zone / "unpacked").exists()
    card(https(server, "images.zip"), https(server, "gone.zip"))
    with pytest.raises(DownloadFailed, match=r"gone\.zip"):
        fetch("tiny", settings)


def test_archive_that_cannot_be_unpacked_leaves_no_root(server: Scripted, settings: Settings, card: Any) -> None:
    server.resources["/bad.tar"] = Resource(LABELS[:600] + b"ustar" + bytes(40))
    server.resources["/evil.zip"] = Resource(zipped(**{"..__escape": b"x"}))
    for name in ("bad.tar", "evil.zip"):
        card(https(server, name))
        with pytest.raises(BadInput):
            fetch("tiny", settings)
        assert not (settings.raw_folder / "tiny" / "unpacked").exists()


def test_run_that_was_killed_while_files_moved_in_is_finished(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip"))
    report = fetch("tiny", settings)
    whole = tree(report)
    zone = settings.raw_folder / "tiny"
    # as a kill leaves it: root out of sight, one file in it, the rest still in the archive's folder
    report.root.rename(zone / "unpacked.part")
    (zone / "unpacked.json").unlink()
    (zone / "unpacked.part" / "Set" / "images" / "2").unlink()
    (zone / "unpacking" / "images.zip").mkdir(parents=True)
    (zone / "unpacking" / "images.zip" / "half").write_bytes(b"")
    assert tree(fetch("tiny", settings)) == whole
    assert not (zone / "unpacked.part").exists()
    assert not (zone / "unpacking").exists()


def test_two_sources_that_bring_different_files_of_one_name(server: Scripted, settings: Settings, card: Any) -> None:
    server.resources["/other.zip"] = Resource(zipped(Set__images__1=b"another"))
    card(https(server, "images.zip"), https(server, "other.zip"))
    with pytest.raises(FileExistsError, match="Set/images/1"):
        fetch("tiny", settings)


def test_move_that_fails_half_way_can_be_repeated(server: Scripted, settings: Settings, card: Any) -> None:
    server.resources["/Set"] = Resource(b"a file where a folder must be")
    server.resources["/images.zip"] = Resource(zipped(**{"0first": b"0", "Set__images__1": b"one"}))
    card(https(server, "Set"))
    fetch("tiny", settings)
    card(https(server, "Set"), https(server, "images.zip"))
    with pytest.raises(NotADirectoryError):
        fetch("tiny", settings)
    zone = settings.raw_folder / "tiny"
    assert (zone / "unpacked" / "Set").is_file()
    (zone / "unpacked" / "Set").unlink()
    card(https(server, "images.zip"))
    assert tree(fetch("tiny", settings)) == {"0first": b"0", "Set/images/1": b"one"}


def test_one_file_for_each_case_is_counted(server: Scripted, settings: Settings, card: Any) -> None:
    for number in range(10):
        server.resources[f"/{number}.bin"] = Resource(bytes([number]), faults=["status:503@0"] if number == 3 else [])
    card(
        {
            "kind": "https",
            "name": "case_{case}.bin",
            "url": f"{server.url}/{{case}}.bin",
            "cases": ["0-9"],
            "place": "dataset/case_{case}/imaging.bin",
        }
    )
    told: list[tuple[str, int, int]] = []
    with listening(lambda what, done, total, _: told.append((what, done, total))):
        report = fetch("tiny", settings)
    assert tree(report) == {f"dataset/case_{number}/imaging.bin": bytes([number]) for number in range(10)}
    assert sorted(told) == [("fetch tiny", number, 10) for number in range(1, 11)]
    assert server.most_at_once <= 2


def test_only_named_sources_optional_ones_too(server: Scripted, settings: Settings, card: Any) -> None:
    card(https(server, "images.zip"), https(server, "list.csv", needed=False))
    assert tree(fetch("tiny", settings, only=["list.csv"])) == {"list.csv": b"a,b\n"}
    with pytest.raises(KeyError, match=r"no source nothing.zip; known: images.zip, list.csv"):
        fetch("tiny", settings, only=["nothing.zip"])


def test_card_without_sources_asks_for_a_folder(settings: Settings) -> None:
    with pytest.raises(ValueError, match="card local names no files to fetch"):
        fetch("local", settings)


def test_zenodo_through_the_whole_fetch(server: Scripted, settings: Settings, card: Any) -> None:
    entry = {"key": "images.zip", "size": len(IMAGES), "checksum": f"md5:{md5(IMAGES)}"}
    entry["links"] = {"self": f"{server.url}/images.zip"}  # type: ignore[assignment]
    server.routes["/api/records/9"] = lambda _: (200, {}, json.dumps({"files": [entry]}).encode())
    card({"kind": "zenodo", "name": "images.zip", "record": "9"})
    report = fetch("tiny", settings, endpoints=Endpoints(zenodo=f"{server.url}/api"))
    assert "Set/images/2" in tree(report)


def test_series_of_imaging_data_commons_that_came_in_part_are_not_taken_for_placed(
    server: Scripted, settings: Settings, card: Any
) -> None:
    slice_, folder = bytes(128) + b"DICM" + b"pixels", "10000000-0000-4000-8000-000000000000"
    row = {"PatientID": "P_1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.5", "instanceCount": 2}
    imitate_idc(server, slice_, [{**row, "collection_id": "tiny", "series_aws_url": f"s3://idc-open-data/{folder}/*"}])
    card({"kind": "idc", "name": "Scans", "collection": "tiny", "place": "Set/{patient}/{study}/{series}"})
    endpoints = Endpoints(idc=f"{server.url}/v3", s3=server.url + "/{bucket}")
    server.resources[f"/idc-open-data/{folder}/a.dcm"] = Resource(slice_)
    with pytest.raises(DownloadFailed, match=r"b\.dcm.*404"):
        fetch("tiny", settings, endpoints=endpoints)
    server.resources[f"/idc-open-data/{folder}/b.dcm"] = Resource(slice_)
    report = fetch("tiny", settings, endpoints=endpoints)
    assert {file.name: file.outcome for file in report.files} == {
        "Scans/1.2.5/a.dcm": "known",
        "Scans/1.2.5/b.dcm": "downloaded",
    }
    assert tree(report) == dict.fromkeys(("Set/P_1/1.2/1.2.5/a.dcm", "Set/P_1/1.2/1.2.5/b.dcm"), slice_)


def test_progress_tells_megabytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 2.0, 4.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    told: list[tuple[int, int, str]] = []
    progress = ByteProgress("fetch x")
    with listening(lambda _, done, total, note: told.append((done, total, note))):
        progress(100_000_000, 900_000_000)  # what an earlier run left does not count for the rate
        progress(110_000_000, 900_000_000)
        progress(900_000_000, 900_000_000)
    assert told == [
        (100, 900, "MB"),
        (110, 900, "MB, 5.0 MB/s, 2:38 left"),
        (900, 900, "MB, 200.0 MB/s, 0:00 left"),
    ]
