"""Each way of getting files, against a local server that answers in the service's documented shapes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from source_server import LISTING, LOGIN, Answer, Asked, Resource, Scripted, as_json, imitate_idc, md5, serving

from datasets_registry.cards import list_cards, load_card
from datasets_registry.sources.download import download
from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import make_client
from datasets_registry.sources.remote import DownloadOptions, Endpoints, RemoteFile, Session
from datasets_registry.sources.resolve import list_files
from datasets_registry.sources.spec import (
    GdriveSource,
    HttpsSource,
    IdcSource,
    ManualSource,
    S3Source,
    Source,
    SynapseSource,
    TciaSource,
    ZenodoSource,
)
from imaging.errors import BadInput


def packed(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return file.getvalue()


ZIP = packed("a.txt")


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as running:
        yield running


@pytest.fixture
def session(server: Scripted, tmp_path: Path) -> Iterator[Session]:
    options = DownloadOptions(tmp_path / "locks", timeout_s=2, retries=1, backoff_s=0.01)
    endpoints = Endpoints(
        zenodo=f"{server.url}/api",
        nbia=(f"{server.url}/v4", f"{server.url}/v1"),
        idc=f"{server.url}/v3",
        s3=server.url + "/{bucket}",
        synapse_repo=f"{server.url}/repo/v1",
        synapse_file=f"{server.url}/file/v1",
        gdrive=server.url,
    )
    with make_client(2) as client:
        yield Session(client, options, endpoints, synapse_token="hush-token")


def fetched(remote: RemoteFile, session: Session, folder: Path) -> bytes:
    download(remote, folder / "out" / remote.name, session)
    return (folder / "out" / remote.name).read_bytes()


# --- https ---


def test_one_file_for_each_case(session: Session) -> None:
    source = HttpsSource(
        name="case_{case}.nii.gz",
        url="https://example.org/{case}/x",
        cases=["008-010"],  # type: ignore[arg-type]
        place="dataset/case_{case}/imaging.nii.gz",
    )
    files = list_files(source, session)
    assert [file.name for file in files] == ["case_008.nii.gz", "case_009.nii.gz", "case_010.nii.gz"]
    assert files[2].locate().url == "https://example.org/010/x"
    assert files[2].place == "dataset/case_010/imaging.nii.gz"


# --- Zenodo ---


def record(server: Scripted, checksum: str, size: int = len(ZIP)) -> dict[str, object]:
    link = f"{server.url}/api/records/123/files/a.zip/content"
    return {"files": [{"key": "a.zip", "size": size, "checksum": checksum, "links": {"self": link}}]}


def test_zenodo_states_size_and_md5(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.routes["/api/records/123"] = lambda _: as_json(record(server, f"md5:{md5(ZIP)}"))
    server.resources["/api/records/123/files/a.zip/content"] = Resource(ZIP)
    (file,) = list_files(ZenodoSource(name="a.zip", record="123"), session)
    assert (file.bytes, file.md5) == (len(ZIP), md5(ZIP))
    assert fetched(file, session, tmp_path) == ZIP


def test_zenodo_entries_as_invenio_writes_them(server: Scripted, session: Session, tmp_path: Path) -> None:
    link = f"{server.url}/api/records/123/files/a.zip/content"
    entry = {"size": len(ZIP), "checksum": f"md5:{md5(ZIP)}", "links": {"content": link}}
    server.routes["/api/records/123"] = lambda _: as_json({"files": {"entries": {"a.zip": entry}}})
    server.resources["/api/records/123/files/a.zip/content"] = Resource(ZIP)
    (file,) = list_files(ZenodoSource(name="b.zip", file="a.zip", record="123"), session)
    assert file.name == "b.zip"
    assert fetched(file, session, tmp_path) == ZIP


def test_zenodo_record_that_disagrees_with_the_card_stops_before_the_download(
    server: Scripted, session: Session
) -> None:
    server.routes["/api/records/123"] = lambda _: as_json(record(server, "md5:" + "1" * 32, 77))
    for known in ({"md5": "2" * 32}, {"bytes": 78}):
        with pytest.raises(BadInput, match="as in the card") as caught:
            list_files(ZenodoSource(name="a.zip", record="123", **known), session)  # type: ignore[arg-type]
        assert caught.value.code == "changed_upstream"
    assert len(server.asked) == 2


def test_zenodo_file_that_is_not_in_the_record(server: Scripted, session: Session) -> None:
    server.routes["/api/records/123"] = lambda _: as_json(record(server, "md5:" + "1" * 32))
    with pytest.raises(DownloadFailed, match=r"no file 'b.zip', only \['a.zip'\]"):
        list_files(ZenodoSource(name="b.zip", record="123"), session)


def test_zenodo_page_instead_of_json(server: Scripted, session: Session) -> None:
    server.routes["/api/records/123"] = lambda _: (200, {"Content-Type": "text/html"}, LOGIN)
    with pytest.raises(DownloadFailed, match="text/html instead of JSON"):
        list_files(ZenodoSource(name="b.zip", record="123"), session)


# --- TCIA ---

SERIES = [
    {"PatientID": "P_2", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.9", "Modality": "CT", "ImageCount": 2},
    {"PatientID": "P_1", "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.5", "Modality": "CT", "ImageCount": 2},
    {"PatientID": "P_1", "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.6", "Modality": "SEG", "ImageCount": 1},
]
COLLECTION = TciaSource(name="Set", collection="My Set", modality="CT", place="Set/{patient}/{study}/{series}")


def nbia(server: Scripted, version: str, archive: bytes) -> None:
    server.routes[f"/{version}/getSeries"] = lambda asked: as_json(
        SERIES if asked.query["Collection"] == "My Set" else []
    )
    server.routes[f"/{version}/getImage"] = lambda _: (200, {}, archive)


def test_tcia_series_one_by_one(server: Scripted, session: Session, tmp_path: Path) -> None:
    archive = packed("LICENSE", "1-1.dcm", "1-2.dcm")
    nbia(server, "v4", archive)
    files = list_files(COLLECTION, session)
    assert [(file.name, file.place) for file in files] == [
        ("Set/1.1.5.zip", "Set/P_1/1.1/1.1.5"),
        ("Set/1.2.9.zip", "Set/P_2/1.2/1.2.9"),
    ]
    assert fetched(files[0], session, tmp_path) == archive
    assert server.asked[-1].query == {"SeriesInstanceUID": "1.1.5"}
    assert files[0].volatile


def test_tcia_falls_back_to_the_older_service(server: Scripted, session: Session) -> None:
    nbia(server, "v1", b"")
    assert len(list_files(COLLECTION, session)) == 2
    assert [asked.path for asked in server.asked] == ["/v4/getSeries", "/v1/getSeries"]


def test_tcia_zip_with_too_few_images_is_refused(server: Scripted, session: Session, tmp_path: Path) -> None:
    nbia(server, "v4", packed("1-1.dcm"))
    with pytest.raises(BadInput, match="found 1 DICOM files, expected 2"):
        fetched(list_files(COLLECTION, session)[0], session, tmp_path)
    assert not list((tmp_path / "out").rglob("*.zip"))


def test_tcia_names_that_would_leave_the_folder_are_refused(server: Scripted, session: Session) -> None:
    evil = [{**SERIES[0], "PatientID": "../.."}]
    server.routes["/v4/getSeries"] = lambda _: as_json(evil)
    with pytest.raises(BadInput, match=r"PatientID '\.\./\.\.'"):
        list_files(COLLECTION, session)


def test_tcia_unknown_collection(server: Scripted, session: Session) -> None:
    server.routes["/v4/getSeries"] = lambda _: (200, {}, b"")
    with pytest.raises(DownloadFailed, match="no series of collection 'My Set'"):
        list_files(COLLECTION, session)


# --- Imaging Data Commons ---

FOLDERS = [f"{number}0000000-0000-4000-8000-000000000000" for number in (1, 2, 3)]
SLICE = bytes(128) + b"DICM" + bytes(40)
IDC_ROWS: list[dict[str, object]] = [
    {
        "collection_id": "my_set",
        "PatientID": patient,
        "StudyInstanceUID": f"1.{number}",
        "SeriesInstanceUID": f"1.{number}.5",
        "Modality": "CT",
        "instanceCount": 2,
        "series_aws_url": f"s3://idc-open-data/{folder}/*",
    }
    for number, (patient, folder) in enumerate(zip(("P_3", "P_1", "P_2"), FOLDERS, strict=True), start=1)
]
IN_IDC = IdcSource(name="Set", collection="my_set", modality="CT", place="Set/{patient}/{study}/{series}")


def test_idc_objects_of_every_series_on_every_page(server: Scripted, session: Session, tmp_path: Path) -> None:
    imitate_idc(server, SLICE, IDC_ROWS)
    server.resources[f"/idc-open-data/{FOLDERS[1]}/b.dcm"] = Resource(SLICE)
    files = list_files(IN_IDC, session)
    assert [(file.name, file.place) for file in files[:3]] == [
        ("Set/1.2.5/a.dcm", "Set/P_1/1.2/1.2.5/a.dcm"),
        ("Set/1.2.5/b.dcm", "Set/P_1/1.2/1.2.5/b.dcm"),
        ("Set/1.3.5/a.dcm", "Set/P_2/1.3/1.3.5/a.dcm"),
    ]
    assert len(files) == 6
    assert {(file.bytes, file.source.name) for file in files} == {(len(SLICE), "Set")}
    assert fetched(files[1], session, tmp_path) == SLICE
    questions = [json.loads(asked.body) for asked in server.asked if asked.path == "/v3/cohort/manifest"]
    assert [question["page"] for question in questions] == [0, 1]
    assert questions[0]["filters"] == {"terms": {"collection_id": ["my_set"], "Modality": ["CT"]}}


def test_idc_all_modalities_are_asked_for_without_a_filter(server: Scripted, session: Session) -> None:
    imitate_idc(server, SLICE, [{**IDC_ROWS[0], "Modality": "SEG"}])
    assert len(list_files(IN_IDC.model_copy(update={"modality": None}), session)) == 2
    assert json.loads(server.asked[0].body)["filters"] == {"terms": {"collection_id": ["my_set"]}}


@pytest.mark.parametrize(
    ("rows", "total", "told"),
    [
        ([], 0, "no series of collection 'my_set'"),
        (IDC_ROWS, 4, "3 different series in 3 rows, though 4 were stated"),
        ([IDC_ROWS[0], IDC_ROWS[0]], 2, "1 different series in 2 rows"),
        ([{**IDC_ROWS[0], "collection_id": "nlst"}], 1, "a series of 'nlst', CT; the service ignored the filter"),
        ([{**IDC_ROWS[0], "Modality": "MR"}], 1, "ignored the filter"),
    ],
)
def test_idc_listing_that_is_not_what_was_asked_for(
    server: Scripted, session: Session, rows: list[dict[str, object]], total: int, told: str
) -> None:
    imitate_idc(server, SLICE, rows, total)
    with pytest.raises(DownloadFailed, match=told):
        list_files(IN_IDC, session)
    assert not any(asked.path == "/idc-open-data/" for asked in server.asked)


def test_idc_answer_of_another_shape(server: Scripted, session: Session) -> None:
    server.routes["/v3/cohort/manifest"] = lambda _: as_json({"manifest": []})
    with pytest.raises(DownloadFailed, match="without series and total_series"):
        list_files(IN_IDC, session)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instanceCount": 3}, "found 2 objects in s3://idc-open-data/.*, expected 3"),
        ({"PatientID": "../.."}, r"PatientID '\.\./\.\.'"),
        ({"series_aws_url": "s3://idc-open-data/../*"}, "series_aws_url"),
        ({"series_aws_url": None}, "series_aws_url"),
    ],
)
def test_idc_series_that_cannot_be_right(
    server: Scripted, session: Session, change: dict[str, object], told: str
) -> None:
    imitate_idc(server, SLICE, [{**IDC_ROWS[0], **change}])
    with pytest.raises(BadInput, match=told):
        list_files(IN_IDC, session)


# --- S3 ---


def listing(asked: Asked) -> Answer:
    assert asked.query["list-type"] == "2"
    key, more, token = (
        ("p/b c.zip", "false", "")
        if asked.query.get("continuation-token") == "next/+="
        else ("p/a.zip", "true", "<NextContinuationToken>next/+=</NextContinuationToken>")
    )
    contents = (
        f"<Contents><Key>{key}</Key><Size>{len(ZIP)}</Size></Contents><Contents><Key>p/</Key><Size>0</Size></Contents>"
    )
    return 200, {}, LISTING.format(contents=contents, more=more, token=token).encode()


def test_s3_prefix_is_listed_page_by_page(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.routes["/bucket/"] = listing
    server.resources["/bucket/p/b%20c.zip"] = Resource(ZIP)
    source = S3Source(name="set", bucket=f"{server.url}/bucket", prefix="p/", place="here")
    files = list_files(source, session)
    assert [(file.name, file.bytes, file.place) for file in files] == [
        ("set/a.zip", len(ZIP), "here/a.zip"),
        ("set/b c.zip", len(ZIP), "here/b c.zip"),
    ]
    assert fetched(files[1], session, tmp_path) == ZIP


def test_s3_key_needs_no_listing(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/bucket/Task03.zip"] = Resource(ZIP)
    source = S3Source(name="t.zip", bucket=f"{server.url}/bucket", key="Task03.zip", md5=md5(ZIP))
    (file,) = list_files(source, session)
    assert fetched(file, session, tmp_path) == ZIP
    assert len(server.asked) == 1


@pytest.mark.parametrize("text", ["<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>", "no xml", "<a/>"])
def test_s3_listing_that_is_none(server: Scripted, session: Session, text: str) -> None:
    server.routes["/bucket/"] = lambda _: (200, {}, text.encode())
    with pytest.raises(DownloadFailed):
        list_files(S3Source(name="set", bucket=f"{server.url}/bucket", prefix="p/"), session)


# --- Synapse ---


def synapse(server: Scripted, failure: str | None = None) -> None:
    def children(asked: Asked) -> Answer:
        wanted = json.loads(asked.body)
        if wanted["parentId"] == "syn2":
            page = [{"id": "syn4", "name": "RawData.zip", "type": "org.sagebionetworks.repo.model.FileEntity"}]
        elif wanted["nextPageToken"] is None:
            return as_json({"page": [], "nextPageToken": "more"})
        else:
            page = [{"id": "syn2", "name": "Abdomen", "type": "org.sagebionetworks.repo.model.Folder"}]
        return as_json({"page": page, "nextPageToken": None})

    def batch(asked: Asked) -> Answer:
        assert json.loads(asked.body)["requestedFiles"][0]["associateObjectId"] == "syn4"
        if failure is not None:
            return as_json({"requestedFiles": [{"failureCode": failure}]})
        handle = {"contentMd5": md5(ZIP), "contentSize": len(ZIP)}
        signed = f"{server.url}/bucket/raw?X-Amz-Signature={len(server.asked)}"
        return as_json({"requestedFiles": [{"fileHandle": handle, "preSignedURL": signed}]})

    server.routes["/repo/v1/entity/children"] = children
    server.routes["/repo/v1/entity/syn4"] = lambda _: as_json({"id": "syn4", "dataFileHandleId": "77"})
    server.routes["/file/v1/fileHandle/batch"] = batch


RAW_DATA = SynapseSource(name="RawData.zip", folder="syn1", page="https://example.org/page")


def test_synapse_file_is_found_by_name_and_signed_anew(server: Scripted, session: Session, tmp_path: Path) -> None:
    synapse(server)
    server.resources["/bucket/raw"] = Resource(ZIP, faults=["cut:50"])
    (file,) = list_files(RAW_DATA, session)
    assert (file.bytes, file.md5, file.origin) == (len(ZIP), md5(ZIP), "synapse:syn4")
    assert fetched(file, session, tmp_path) == ZIP
    questions = [asked for asked in server.asked if asked.path.startswith(("/repo", "/file"))]
    assert all(asked.headers["Authorization"] == "Bearer hush-token" for asked in questions)
    downloads = [asked for asked in server.asked if asked.path == "/bucket/raw"]
    assert all("Authorization" not in asked.headers for asked in downloads)
    assert len({asked.query["X-Amz-Signature"] for asked in downloads}) == 2


def test_synapse_terms_not_accepted(server: Scripted, session: Session) -> None:
    synapse(server, failure="UNAUTHORIZED")
    with pytest.raises(DownloadFailed, match=r"UNAUTHORIZED; sign in at https://example.org/page") as caught:
        list_files(RAW_DATA, session)
    assert "hush" not in str(caught.value)


def test_synapse_token_refused(server: Scripted, session: Session) -> None:
    server.routes["/repo/v1/entity/children"] = lambda _: (401, {}, b"{}")
    with pytest.raises(DownloadFailed, match=r"401.*CTFACTORY_SYNAPSE_TOKEN"):
        list_files(RAW_DATA, session)


# --- Google Drive ---

WARNING = """<html><body><form id="download-form" action="{url}/download" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="F1"/>
<input type="hidden" name="confirm" value="t"/>
<input type="hidden" name="uuid" value="a&amp;b"/></form></body></html>"""
FOLDER = """<html><body><div class="flip-entry" id="entry-F1"><a href="https://drive.google.com/file/d/F1/view">
<div class="flip-entry-title">Training Batch1.zip</div></a></div><div class="flip-entry" id="entry-D1">
<a href="https://drive.google.com/drive/folders/D1"><div class="flip-entry-title">old</div></a></div></body></html>"""


def drive(server: Scripted, page: str) -> None:
    def confirmed(asked: Asked) -> Answer:
        assert asked.query == {"id": "F1", "confirm": "t", "uuid": "a&b"}
        return 200, {"Content-Type": "application/octet-stream"}, ZIP

    html = {"Content-Type": "text/html; charset=utf-8"}
    server.routes["/uc"] = lambda _: (200, html, page.encode())
    server.routes["/download"] = confirmed
    server.routes["/embeddedfolderview"] = lambda asked: (
        (200, html, FOLDER.encode()) if asked.query == {"id": "D", "resourcekey": "K"} else (404, {}, b"")
    )


def test_drive_goes_past_the_warning_of_large_files(server: Scripted, session: Session, tmp_path: Path) -> None:
    drive(server, WARNING.format(url=server.url))
    (file,) = list_files(GdriveSource(name="w.zip", file="F1"), session)
    assert fetched(file, session, tmp_path) == ZIP


def test_drive_serves_small_files_at_once(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.routes["/uc"] = lambda _: (200, {"Content-Type": "application/zip"}, ZIP)
    (file,) = list_files(GdriveSource(name="w.zip", file="F1"), session)
    assert fetched(file, session, tmp_path) == ZIP


def test_drive_file_is_found_in_its_folder(server: Scripted, session: Session, tmp_path: Path) -> None:
    drive(server, WARNING.format(url=server.url))
    (file,) = list_files(GdriveSource(name="Training_Batch1.zip", folder="D", resource_key="K"), session)
    assert file.origin == "gdrive:F1"
    assert fetched(file, session, tmp_path) == ZIP
    with pytest.raises(
        DownloadFailed, match=r"0 files of that name in the folder, which lists \['Training Batch1.zip'"
    ):
        list_files(GdriveSource(name="Training_Batch2.zip", folder="D", resource_key="K"), session)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<html>Sorry: too many users have viewed or downloaded this file recently</html>", "limit of downloads"),
        ('<html><a href="https://accounts.google.com/signin">Sign in</a></html>', "not shared with everyone"),
        ("<html>something new</html>", "without the download form"),
    ],
)
def test_drive_pages_that_are_no_download(
    server: Scripted, session: Session, tmp_path: Path, page: str, told: str
) -> None:
    drive(server, page)
    (file,) = list_files(GdriveSource(name="w.zip", file="F1", page="https://example.org/p"), session)
    with pytest.raises(DownloadFailed, match=told) as caught:
        fetched(file, session, tmp_path)
    assert "https://drive.google.com/file/d/F1/view" in str(caught.value)


# --- all cards ---


def test_manual_source_lists_nothing(session: Session) -> None:
    assert list_files(ManualSource(name="x.zip"), session) == []


@pytest.mark.parametrize("card_id", list_cards())
def test_sources_of_every_card_have_names_of_their_own(card_id: str) -> None:
    card = load_card(card_id)
    names = [source.name for source in card.sources]
    assert len(set(names)) == len(names)
    known = {card.label_variant, *card.label_variants}
    assert all(set(source.variants) <= known for source in card.sources)
    if card_id not in ("local",):
        assert any(source.needed for source in card.sources)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "https", "name": "../a", "url": "https://x.org/a"}, "not a plain path"),
        ({"kind": "https", "name": "a", "url": "https://x.org/{case}", "cases": ["1"]}, "exactly when"),
        ({"kind": "https", "name": "a", "url": "ftp://x.org/a"}, "url"),
        ({"kind": "https", "name": "a", "url": "https://x.org/a", "volatile": True, "md5": "0" * 32}, "volatile"),
        ({"kind": "synapse", "name": "a"}, "either entity or folder"),
        ({"kind": "gdrive", "name": "a", "file": "1", "folder": "2"}, "either file or folder"),
        ({"kind": "s3", "name": "a", "bucket": "https://x.org"}, "either key or prefix"),
        ({"kind": "idc", "name": "a", "collection": "Pancreas-CT"}, "collection"),
        ({"kind": "torrent", "name": "a"}, "torrent"),
    ],
)
def test_contradictions_in_a_card_are_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(Source).validate_python(fields)
