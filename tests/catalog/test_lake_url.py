"""A lake in an object store: the same bytes and the same answers as in a folder, writers without locks included."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog import layout
from catalog.errors import AnnotationExists, LakeDamage, LakeUnreachable
from catalog.lake import Lake
from catalog.lake_write import StoredCase
from catalog.objects import ObjectFiles
from catalog.shard_object import ObjectShard
from imaging.volume import Volume

KEY = "0123456789abcdef" * 4
HOME = "volumes/kits/case_1"
PATH = f"{HOME}/0123456789ab.zarr"
SHARD = f"{PATH}/0/c/0/0/0"
INDEX = f"{PATH}/labels/zarr.json"
PSEUDO = "pseudo-v1-00ff"
READERS = ("direct", layout.ZARRS, layout.ZARR_PYTHON)


def noise(seed: int = 0) -> Volume:
    """Return whole chunks that do not pack: every such shard is equally long, chunk by chunk."""
    values = np.random.default_rng(seed).integers(-32767, 32768, (64, 32, 32), dtype=np.int16)
    return Volume(values, np.diag([0.8, 1.5, 2.5, 1.0]))


@pytest.fixture
def far(s3_root: str) -> Lake:
    return Lake(s3_root)


@pytest.fixture
def written(far: Lake, scan: Any, label: Any) -> dict[str, Any]:
    stored = far.write_case("kits", "case_1", KEY, scan(), {"original_shape": [37, 5, 66]}, {"human": label()})
    return row_of(stored)


def row_of(stored: StoredCase) -> dict[str, Any]:
    return {"case_id": "kits/case_1", "path": stored.path, "manifest": stored.manifest.to_json()}


def test_every_object_holds_the_bytes_of_the_local_file(
    far: Lake, written: dict[str, Any], tmp_path: Path, scan: Any, label: Any
) -> None:
    near = Lake(tmp_path)
    stored = near.write_case("kits", "case_1", KEY, scan(), {"original_shape": [37, 5, 66]}, {"human": label()})
    assert written["manifest"] == stored.manifest.to_json()
    for lake in (near, far):
        lake.write_annotation(stored.path, PSEUDO, label(1), {"model": "m"})
    names = list(near.files.list("volumes"))
    assert len(names) == 8 + 7 + 7 + 1 + 2 - 1  # image with three levels, two annotations, their list, two notes
    assert list(far.files.list("volumes")) == names
    assert [far.files.read(name) for name in names] == [near.files.read(name) for name in names]


def read_by(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have arrays read by the lake's own reader (`direct`) or by one of zarr's pipelines."""
    if reader != "direct":
        monkeypatch.setattr(ObjectShard, "of", lambda *_: None)
        monkeypatch.setattr(layout, "codec_pipeline", lambda: reader)


@pytest.mark.parametrize("reader", READERS)
def test_boxes_are_read_as_they_were_given(
    far: Lake, written: dict[str, Any], scan: Any, label: Any, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    read_by(reader, monkeypatch)
    lake = Lake(far.location)
    np.testing.assert_array_equal(lake.open_image(written).read(), scan().array)
    np.testing.assert_allclose(lake.open_image(written).affine, scan().affine)
    patch = lake.read_bits_patch(written, "human", (-2, 30, 60), (5, 5, 5)).array
    np.testing.assert_array_equal(patch, _padded(label()))


def _padded(bits: Any) -> Any:
    """Return the box of 5 x 5 x 5 at (-2, 30, 60): two planes beyond the scan, none elsewhere."""
    return np.pad(bits[:, 0:3, 30:35, 60:65], [(0, 0), (2, 0), (0, 0), (0, 0)])


def test_a_box_takes_one_request_where_its_chunks_lie_near_one_another(
    far: Lake, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = far.open_image(written)
    asked: list[int] = []
    plain = ObjectFiles.ranges

    def counted(files: ObjectFiles, name: str, ranges: Any) -> list[bytes]:
        asked.append(len(ranges))
        return plain(files, name, ranges)

    monkeypatch.setattr(ObjectFiles, "ranges", counted)
    stored.read()
    assert asked == [6]  # 5 x 37 x 66 voxels in chunks of 32, asked for together


def test_a_chunk_of_another_case_is_no_chunk_of_this_one(far: Lake) -> None:
    row = row_of(far.write_case("kits", "case_1", KEY, noise(0), {}))
    other = far.write_case("kits", "case_2", KEY, noise(1), {})
    opened = far.open_image(row)
    far.location.store.put(SHARD, far.files.read(f"{other.path}/0/c/0/0/0"))  # whole, sound, and of equal length
    with pytest.raises(LakeDamage, match="of other content"):
        opened.read()


def test_writing_again_puts_back_what_is_missing_and_says_so(
    far: Lake, written: dict[str, Any], scan: Any, label: Any
) -> None:
    def again() -> bool:
        return far.write_case(
            "kits", "case_1", KEY, scan(), {"original_shape": [37, 5, 66]}, {"human": label()}
        ).created

    assert not again()
    sound = far.files.read(SHARD)
    far.files.remove(SHARD)
    assert again()
    assert far.files.read(SHARD) == sound


def test_an_annotation_is_added_once_and_never_replaced(far: Lake, written: dict[str, Any], label: Any) -> None:
    first = far.write_annotation(PATH, PSEUDO, label(1), {"model": "m"})
    assert far.write_annotation(PATH, PSEUDO, label(1), {"model": "m"}) == first
    with pytest.raises(AnnotationExists, match="fresh name"):
        far.write_annotation(PATH, PSEUDO, label(2), {"model": "m"})
    with pytest.raises(AnnotationExists, match="came with the case"):
        far.write_annotation(PATH, "human", label(2))
    with pytest.raises(FileNotFoundError, match=r"no such case in the lake s3://lake-"):
        far.write_annotation(f"{HOME}/other.zarr", PSEUDO, label())


def test_a_name_claimed_by_an_unfinished_writer_is_not_taken_before_an_hour(
    far: Lake, written: dict[str, Any], label: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.write_annotation(PATH, PSEUDO, label(1))
    far.files.remove(f"{PATH}/labels/{PSEUDO}/zarr.json")  # what is put last
    with pytest.raises(AnnotationExists, match="fresh name"):
        far.write_annotation(PATH, PSEUDO, label(2))

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr("catalog.lake_write.datetime", Later)
    manifest = far.write_annotation(PATH, PSEUDO, label(2))
    assert all(far.files.sha256(f"{PATH}/{file}") == entry.sha256 for file, entry in manifest.files.items())


def test_writers_without_a_lock_are_all_in_the_list_of_annotations(
    far: Lake, written: dict[str, Any], label: Any
) -> None:
    names = [f"pseudo-v{number}-00ff" for number in range(6)]
    lakes = [Lake(far.location) for _ in names]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda lake, name: lake.write_annotation(PATH, name, label(1)), lakes, names))
    index = json.loads(far.files.read(INDEX))
    assert index["attributes"]["ome"]["labels"] == sorted(["human", *names])


def test_a_lost_conditional_write_is_tried_again_with_what_the_other_wrote(far: Lake) -> None:
    seen: list[str | None] = []

    def render(now: str | None) -> str:
        if not seen:
            far.location.store.put("a/list", b"theirs")  # another writer, between our look and our write
        seen.append(now)
        return f"{now} ours"

    far.files.update("a/list", render)
    assert seen == [None, "theirs"]
    assert far.files.read("a/list") == b"theirs ours"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("fault", "opened"),
    [
        ("stale", False),
        *((fault, at) for fault in ("deleted", "emptied", "truncated", "flipped") for at in (False, True)),
    ],
)
def test_damage_raises_whenever_it_happens(
    far: Lake,
    written: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    fault: str,
    opened: bool,
) -> None:
    read_by(reader, monkeypatch)
    if opened:
        far.read_patch(written, (0, 0, 0), (5, 8, 8))
    content = bytearray(far.files.read(SHARD))
    content[10] ^= 0x40
    if fault == "stale":
        other = far.write_case("kits", "case_1", "f" * 64, noise(1), {})
        written = row_of(far.write_case("kits", "case_1", KEY, noise(2), {}))
        content = bytearray(far.files.read(f"{other.path}/0/c/0/0/0"))
        assert len(content) == far.files.sizes([SHARD])[SHARD]
    if fault == "deleted":
        far.files.remove(SHARD)
    else:
        far.location.store.put(SHARD, bytes({"emptied": b"", "truncated": content[:-1]}.get(fault, content)))
    with pytest.raises(LakeDamage, match="kits/case_1"):
        far.read_patch(written, (0, 0, 0), (5, 8, 8))


def test_an_object_copied_over_another_takes_its_digest_along_and_is_found(far: Lake) -> None:
    written = row_of(far.write_case("kits", "case_1", KEY, noise(0), {}))
    other = far.write_case("kits", "case_2", KEY, noise(1), {})
    shard = f"{other.path}/0/c/0/0/0"
    assert far.files.sizes([SHARD])[SHARD] == far.files.sizes([shard])[shard]
    far.location.store.copy(shard, SHARD)
    assert far.files.noted_sha256(SHARD) == other.manifest.files["0/c/0/0/0"].sha256
    with pytest.raises(LakeDamage, match="SHA-256"):
        far.open_image(written)


def test_a_wrong_bucket_is_told_with_url_and_remedy(s3_root: str, scan: Any) -> None:
    lake = Lake("s3://no-such-bucket/lake")
    with pytest.raises(
        LakeUnreachable, match=r"s3://no-such-bucket/lake/.*no such bucket; check that the bucket exists"
    ):
        lake.files.read("volumes/x")
    with pytest.raises(LakeUnreachable, match=r"s3://no-such-bucket/lake/.*AWS_ENDPOINT_URL"):
        lake.write_case("kits", "case_1", KEY, scan(), {})


@pytest.mark.parametrize("reader", READERS)
def test_a_store_that_does_not_answer_is_no_damage(
    far: Lake, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    read_by(reader, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("catalog.location.RETRY", {"max_retries": 0})
    lake = Lake(str(far.location))
    with pytest.raises(LakeUnreachable, match=r"127\.0\.0\.1:1"):
        lake.open_image(written)
    stored = far.open_image(written)
    object.__setattr__(stored, "files", lake.files)
    if isinstance(stored.shard, ObjectShard):
        monkeypatch.setattr(stored.shard, "_files", lake.files)
    monkeypatch.setattr(type(stored.array), "__getitem__", lambda *_: (_ for _ in ()).throw(OSError("refused")))
    with pytest.raises(LakeUnreachable, match=r"127\.0\.0\.1:1"):
        stored.read()


def test_without_credentials_the_message_says_which_are_needed(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("catalog.location.RETRY", {"max_retries": 0})
    with pytest.raises(LakeUnreachable, match="AWS_SECRET_ACCESS_KEY"):
        Lake(s3_root).files.list("volumes")


def test_a_forked_child_is_told_to_be_spawned(far: Lake, written: dict[str, Any]) -> None:
    far.open_image(written)
    child = os.fork()
    if child == 0:
        try:
            far.files.read(SHARD)
        except RuntimeError as error:
            os._exit(0 if "spawn or forkserver" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
