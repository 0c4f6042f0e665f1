"""Writing: the same bytes each time, all or nothing, one writer, nothing overwritten."""

from __future__ import annotations

import errno
import json
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from catalog import lake_write, layout, publish
from catalog.errors import AnnotationExists
from catalog.lake import Lake
from catalog.manifest import build_manifest
from imaging.volume import Volume

KEY = "0123456789abcdef" * 4
HOME = "volumes/kits/case_1"
PATH = f"{HOME}/0123456789ab.zarr"


def digest(folder: Path) -> str:
    return build_manifest(folder).to_json()


def write(lake: Lake, scan: Any, label: Any, **changes: Any) -> lake_write.StoredCase:
    labels = changes.pop("labels", {"human": label()})
    return lake.write_case("kits", "case_1", KEY, scan(), {"original_shape": (37, 5, 66)}, labels)


def test_case_is_read_back_as_it_was_given(lake: Lake, scan: Any, label: Any) -> None:
    stored = write(lake, scan, label)
    row = {"case_id": "kits/case_1", "path": stored.path, "manifest": stored.manifest.to_json()}
    assert (stored.path, stored.created) == (PATH, True)
    np.testing.assert_array_equal(lake.open_image(row).read(), scan().array)
    np.testing.assert_array_equal(lake.open_bits(row, "human").read(), label())
    np.testing.assert_allclose(lake.open_image(row).affine, scan().affine)
    attributes: Any = zarr.open_group(lake.root / stored.path, mode="r").attrs.asdict()["ctfactory"]
    assert attributes["affine"] == scan().affine.tolist()
    assert attributes["original"] == {"original_shape": [37, 5, 66]}
    assert attributes["steps"] == [{"step": "resampled", "spacing_mm": [0.8, 1.5, 2.5]}]


def test_the_same_case_gives_the_same_files_whatever_the_memory_order(tmp_path: Path, scan: Any, label: Any) -> None:
    first, second = Lake(tmp_path / "a"), Lake(tmp_path / "b")
    write(first, scan, label)
    image = scan()
    turned = Volume(np.asfortranarray(image.array), image.affine, image.steps)
    second.write_case(
        "kits", "case_1", KEY, turned, {"original_shape": [37, 5, 66]}, {"human": np.asfortranarray(label())}
    )
    assert digest(first.root) == digest(second.root)


def test_repeating_a_write_changes_nothing_and_says_so(lake: Lake, scan: Any, label: Any) -> None:
    first = write(lake, scan, label)
    lake.write_annotation(first.path, "pseudo-v1-00ff", label(1))
    before = digest(lake.root)
    again = write(lake, scan, label)
    assert (again.created, again.manifest) == (False, first.manifest)
    assert digest(lake.root) == before


@pytest.mark.parametrize("fault", ["deleted", "emptied", "flipped", "truncated"])
def test_writing_again_puts_a_damaged_case_right_and_keeps_its_annotations(
    lake: Lake, scan: Any, label: Any, fault: str
) -> None:
    stored = write(lake, scan, label)
    lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1))
    sound = digest(lake.root)
    shard = lake.root / stored.path / "0/c/0/0/0"
    content = bytearray(shard.read_bytes())
    if fault == "deleted":
        shard.unlink()
    elif fault == "flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    else:
        shard.write_bytes(content[: 0 if fault == "emptied" else -7])
    assert write(lake, scan, label).created
    assert digest(lake.root) == sound


def test_leftovers_of_a_killed_writer_are_replaced(lake: Lake, scan: Any, label: Any) -> None:
    partial = lake.root / HOME / ".0123456789ab.partial"
    (partial / "0").mkdir(parents=True)
    (partial / "0/zarr.json").write_text("half a fi")
    write(lake, scan, label)
    assert sorted(path.name for path in (lake.root / HOME).iterdir()) == [
        "0123456789ab.manifest.json",
        "0123456789ab.zarr",
    ]


@pytest.mark.parametrize("place", [f"{PATH}/labels/.zarr.json.partial", f"{HOME}/.0123456789ab.manifest.json.partial"])
def test_files_of_a_writer_killed_before_its_rename_go_with_the_next_write(
    lake: Lake, scan: Any, label: Any, place: str
) -> None:
    write(lake, scan, label)
    sound = digest(lake.root)
    (lake.root / place).write_text("half a fi")
    write(lake, scan, label)
    assert digest(lake.root) == sound


def test_a_failing_write_leaves_nothing_visible_and_names_the_place(
    lake: Lake, scan: Any, label: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise RuntimeError("No space left on device (os error 28)")  # as zarrs does

    monkeypatch.setattr(publish, "sync_tree", full_disk)
    with pytest.raises(OSError, match="nothing half-written") as caught:
        write(lake, scan, label)
    assert caught.value.errno == errno.ENOSPC
    assert f"{lake.root / HOME}: No space left" in str(caught.value)
    assert f"while writing {5 * 37 * 66 * (2 + 4)} bytes to a disk with" in str(caught.value)
    assert not (lake.root / PATH).exists()
    assert not list((lake.root / HOME).glob(".*"))
    monkeypatch.undo()
    assert write(lake, scan, label).created


def _write_in_process(root: str, barrier: Any, results: Any) -> None:
    image = Volume(np.arange(30_000, dtype=np.int16).reshape(30, 40, 25), np.diag([1.0, 1, 2, 1]))
    barrier.wait()
    stored = Lake(root).write_case("kits", "case_1", KEY, image, {})
    results.put((stored.created, stored.manifest.to_json()))


def test_of_two_writers_of_one_case_one_creates_it_and_the_other_is_told(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_write_in_process, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for writer in writers:
        writer.start()
    answers = [results.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join()
    assert sorted(created for created, _ in answers) == [False, True]
    assert answers[0][1] == answers[1][1]
    assert len(list((tmp_path / HOME).iterdir())) == 2


def test_threads_adding_annotations_are_all_listed(lake: Lake, scan: Any, label: Any) -> None:
    stored = write(lake, scan, label)
    names = [f"pseudo-v{number}-00ff" for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: lake.write_annotation(stored.path, name, label(1)), names))
    index = json.loads((lake.root / stored.path / "labels/zarr.json").read_text())
    assert index["attributes"]["ome"]["labels"] == sorted(["human", *names])


def test_annotation_is_added_once_and_never_replaced(lake: Lake, scan: Any, label: Any) -> None:
    stored = write(lake, scan, label)
    first = lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1), {"model": "m", "score": np.float64(0.5)})
    assert set(first.files) == {
        "labels/pseudo-v1-00ff/zarr.json",
        *(f"labels/pseudo-v1-00ff/{level}/{file}" for level in "012" for file in ("zarr.json", "c/0/0/0/0")),
    }
    assert lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1), {"model": "m", "score": 0.5}) == first
    with pytest.raises(AnnotationExists, match="fresh name"):
        lake.write_annotation(stored.path, "pseudo-v1-00ff", label(2), {"model": "m", "score": 0.5})
    with pytest.raises(AnnotationExists, match="came with the case"):
        lake.write_annotation(stored.path, "human", label(2))
    (lake.root / stored.path / "labels/pseudo-v1-00ff/0/c/0/0/0/0").unlink()
    assert lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1), {"model": "m", "score": 0.5}) == first


def test_what_may_not_be_stored_is_refused_with_the_case(lake: Lake, scan: Any, label: Any) -> None:
    image: Volume = scan()
    missing = image.array.copy()
    missing[0, 0, 0] = layout.IMAGE_FILL
    oblique = image.affine.copy()
    oblique[0, 1] = 0.1
    for bad, found in [
        (image.with_array(image.array.astype(np.float32)), "float32"),
        (image.with_array(missing), "-32768"),
        (Volume(image.array, oblique), "axis-aligned RAS"),
        (Volume(image.array, image.affine @ np.diag([-1, 1, 1, 1])), "axis-aligned RAS"),
    ]:
        with pytest.raises(ValueError, match=f"kits/case_1.*{found}"):
            lake.write_case("kits", "case_1", KEY, bad, {})
    full = label()
    full[0, 1, 1, 1] = layout.BITS_FILL
    for bits, found in [(label()[:, :4], "4, 37, 66"), (label().astype(np.int32), "int32"), (full, "all 32 classes")]:
        with pytest.raises(ValueError, match=f"kits/case_1: human.*{found}"):
            lake.write_case("kits", "case_1", KEY, image, {}, {"human": bits})
    with pytest.raises(ValueError, match="annotation"):
        lake.write_case("kits", "case_1", KEY, image, {}, {"../human": label()})
    with pytest.raises(TypeError, match="geometry"):
        lake.write_case("kits", "case_1", KEY, image, {"x": object()})
    with pytest.raises(FileNotFoundError, match="no such case"):
        lake.write_annotation("volumes/kits/other/x.zarr", "pseudo-v1-00ff", label())
    assert not list(lake.root.rglob("*.zarr"))


def test_a_lake_can_be_sent_elsewhere(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Lake(tmp_path))).root == tmp_path
    assert str(pickle.loads(pickle.dumps(Lake("s3://bucket/lake"))).location) == "s3://bucket/lake"
