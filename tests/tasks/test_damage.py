"""A hundred random damages to a lake: verify names every one, the patch source raises on every one, nothing is air."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_rows import make_case_row, make_label_row
from numpy.typing import NDArray

from catalog import shard
from catalog.errors import LakeDamage
from catalog.lake import Lake
from catalog.tables import Tables
from catalog.verify import verify
from imaging.volume import Volume
from tasks.patches import LakePatchSource

DAMAGES = 100
FAULTS = ("delete", "empty", "truncate", "flip", "swap", "stale")
KEYS = ("0" * 64, "1" * 64)
SHAPE = (32, 32, 64)


def voxels(case: int, version: int) -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
    """Return image and bits; of even cases noise that does not pack, so that all their shards are equally long.

    The bits of a version are those of the other one with two classes exchanged.
    """
    generator = np.random.default_rng([case, version])
    low, high = (-32767, 32768) if case % 2 == 0 else (-1024, 1500)
    organ = np.random.default_rng(case).random((1, *SHAPE)) < 0.2
    return generator.integers(low, high, SHAPE).astype(np.int16), np.where(organ, 1 << (5 + version), 0).astype(
        np.uint32
    )


class DamagedLake:
    """Five cases in two versions, the newer ones current; files are damaged one fault at a time and put right."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = Tables(root)
        self.truth: dict[str, tuple[Any, Any]] = {}
        self.paths: dict[str, tuple[str, str]] = {}
        lake = Lake(root)
        for case in range(5):
            commits = []
            for version, key in enumerate(KEYS):
                image, bits = voxels(case, version)
                name = f"case_{case}"
                volume = Volume(image, np.diag([0.8, 1.5, 2.5, 1.0]))
                stored = lake.write_case("kits", name, key, volume, {}, {"human": bits})
                row = make_case_row(
                    "kits",
                    name,
                    stored,
                    ingest_key=key,
                    **dict(zip(("shape_x", "shape_y", "shape_z"), SHAPE, strict=True)),
                )
                manifest = stored.annotation_manifest("human").to_json()
                self.tables.commit_case(row, [make_label_row(row, "liver", manifest=manifest)])
                commits.append(stored.path)
                self.truth[f"kits/{name}"] = (image, bits)
            self.paths[f"kits/{name}"] = (commits[0], commits[1])
        self.cases, self.labels = self.tables.cases(), self.tables.labels()

    def source(self) -> LakePatchSource:
        """Return a patch source of a process that has opened nothing yet."""
        return LakePatchSource(Lake(self.root), self.cases, self.labels)

    def read_all(self, source: LakePatchSource) -> dict[str, LakeDamage]:
        """Read every case over its whole volume; return what was raised, and see that the rest is the truth."""
        raised = {}
        for case_id, (image, bits) in self.truth.items():
            try:
                found = source.read(case_id, (0, 0, 0), SHAPE)
            except LakeDamage as damage:
                raised[case_id] = damage
                continue
            np.testing.assert_array_equal(found[0], image)
            np.testing.assert_array_equal(found[1], bits)
        return raised


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> DamagedLake:
    return DamagedLake(tmp_path_factory.mktemp("damaged"))


def draw(lake: DamagedLake, chance: random.Random) -> tuple[str, dict[str, bytes | None]]:
    """Return a fault, and for each file that it changes the bytes it leaves (None: no file)."""
    while True:
        fault = chance.choice(FAULTS)
        case_id = chance.choice(sorted(lake.paths))
        old, new = lake.paths[case_id]
        names = sorted(p.relative_to(lake.root / new).as_posix() for p in (lake.root / new).rglob("*") if p.is_file())
        shards = [name for name in names if "0/c/" in name]  # two of fourteen files, and those that are hardest to tell
        name = chance.choice([name for name in (*names, *shards * 4) if name != "labels/zarr.json"])
        content = (lake.root / new / name).read_bytes()
        if fault == "swap":
            other = lake.paths[chance.choice(sorted(set(lake.paths) - {case_id}))][1]
            theirs = (lake.root / other / name).read_bytes()
            changes: dict[str, bytes | None] = {f"{new}/{name}": theirs, f"{other}/{name}": content}
        elif fault == "stale":
            theirs = (lake.root / old / name).read_bytes()
            changes = {f"{new}/{name}": theirs}
        else:
            place = chance.randrange(len(content))
            flipped = bytes([*content[:place], content[place] ^ (1 << chance.randrange(8)), *content[place + 1 :]])
            left = {"delete": None, "empty": b"", "truncate": content[:place], "flip": flipped}[fault]
            theirs, changes = left or b"", {f"{new}/{name}": left}
        if theirs != content:  # files of two cases may be the same; then nothing is damaged
            return fault, changes


def case_of(name: str) -> str:
    """Return the case id from a path below `volumes`."""
    return "/".join(name.split("/")[1:3])


def is_read(name: str, before: bytes, after: bytes | None) -> bool:
    """Whether the damage lies in what a patch reads: metadata, full resolution, or a length that opening compares."""
    return after is None or len(after) != len(before) or name.endswith("zarr.json") or "/0/c/" in name


@pytest.mark.parametrize("large", [False, True], ids=["short shards", "long shards"])
def test_a_hundred_damages_are_all_named_and_all_raise(
    damaged: DamagedLake, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    # Of a shard beyond this length only the chunks that are read are compared, not all of it when it is opened.
    monkeypatch.setattr(shard, "WHOLE_CHECK_BYTES", 0 if large else 2**20)
    chance = random.Random(f"damage {large}")
    warm = damaged.source()
    assert damaged.read_all(warm) == {}
    done: Counter[str] = Counter()
    beside = same_length = 0
    while sum(done.values()) < DAMAGES // 2:
        fault, changes = draw(damaged, chance)
        before = {name: (damaged.root / name).read_bytes() for name in changes}
        for name, content in changes.items():
            (damaged.root / name).unlink() if content is None else (damaged.root / name).write_bytes(content)
        named = [(item.case_id, item.file) for item in verify(damaged.tables, Lake(damaged.root), read_data=True)]
        assert named == sorted((case_of(name), name) for name in changes), f"{fault} of {list(changes)}"
        hit = {name for name, content in changes.items() if is_read(name, before[name], content)}
        raised = damaged.read_all(damaged.source())
        expected = {case_of(name) for name in hit}
        assert set(raised) == expected, f"{fault} of {list(changes)}"
        assert all("ingest the case again" in str(damage) for damage in raised.values())
        if any("/0/c/" in name for name in hit):  # handles that are open already see no metadata, but every chunk
            assert set(damaged.read_all(warm)) == expected, f"{fault} of {list(changes)} after opening"
        for name, content in before.items():
            (damaged.root / name).write_bytes(content)
        done[fault] += bool(hit)
        beside += not hit
        same_length += any(len(changes[name] or b"") == len(before[name]) and "/0/c/" in name for name in hit)
    print(f"{sum(done.values())} damages named and raised: {dict(done)}; {same_length} shards of equal length;")
    print(f"{beside} more in coarser levels, which patches do not read: named by verify")
    assert set(done) == set(FAULTS)
    assert same_length
    assert damaged.read_all(damaged.source()) == {}
