"""How near classes lie: cosines by hand, neighbours, the plane, and pictures whose labels do not touch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.transforms import Bbox
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flows.cli import app
from models.text import TextEmbeddings
from tasks.embedding_pictures import _free_spot, class_map, similarity_matrix
from tasks.embeddings import Similarities, class_similarities, cosines, plane, stored_rows
from tasks.settings import Settings

NAMES = ("liver", "right_kidney", "left_kidney")
ROWS = np.zeros((3, 512), np.float32)
ROWS[0, 0], ROWS[1, :2], ROWS[2, 1] = 2, (3, 4), 0.5


def test_cosines_and_neighbours_by_hand() -> None:
    expected = [[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]]
    found = Similarities(TextEmbeddings(ROWS, "by hand", "V1", NAMES), cosines(ROWS), "hand")
    assert np.allclose(found.cosines, expected)
    (_, liver), (_, right), _ = found.neighbours(1)
    assert liver == [("right_kidney", pytest.approx(0.6))]
    assert right == [("left_kidney", pytest.approx(0.8))]
    assert found.table.loc["liver", "left_kidney"] == pytest.approx(0)
    assert not cosines(np.zeros((2, 512), np.float32)).any()  # a text without words


def test_the_plane_keeps_the_distances_of_three_unit_rows() -> None:
    places, shares = plane(ROWS)  # three points always lie in a plane
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert np.allclose(distances**2, 2 - 2 * cosines(ROWS), atol=1e-6)
    assert sum(shares) == pytest.approx(1)
    again, _ = plane(-ROWS)
    assert np.allclose(np.abs(again), np.abs(places))


def test_rows_of_extensions_come_behind_the_models_own(tmp_path: Path) -> None:
    rows = {f"model.{key}organ_embedding": np.full((1, 512), value, np.float32)
            for key, value in (("extensions.10.", 3), ("extensions.2.", 2), ("", 1))}  # fmt: skip
    save_file({**rows, "model.controller.bias": np.zeros(3, np.float32)}, tmp_path / "m.safetensors")
    assert stored_rows(tmp_path / "m.safetensors")[:, 0].tolist() == [1, 2, 3]


def test_a_label_takes_the_nearest_spot_that_is_free() -> None:
    frame = Bbox.from_extents(0, 0, 500, 500)
    first = _free_spot(100, 100, 50, 10, [], frame)
    assert (first.x0, (first.y0 + first.y1) / 2) == (113, 100)
    second = _free_spot(100, 100, 50, 10, [first], frame)
    assert not second.overlaps(first)
    corner = _free_spot(495, 495, 50, 10, [], frame)
    assert corner.x1 < 500
    assert corner.y1 < 500


@pytest.mark.parametrize("encoder", ["hashing", "one_hot"])
def test_pictures_are_drawn_for_all_classes(tmp_path: Path, encoder: str) -> None:
    found = class_similarities(Settings(workspace=tmp_path), encoder, "V2")
    assert found.slug.endswith("-v2")
    for draw in (similarity_matrix, class_map):
        picture = draw(found, tmp_path / f"{draw.__name__}.png")
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_neighbours_and_writes_the_whole_table(tmp_path: Path) -> None:
    words = ["models", "embeddings", "show", "-w", str(tmp_path), "--csv", str(tmp_path / "t" / "cosines.csv")]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "150"})
    assert shown.exit_code == 0, shown.output
    assert "left kidney 0.44" in shown.stdout
    assert len((tmp_path / "t" / "cosines.csv").read_text().splitlines()) == 33
    table = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert table["encoder"] == "hashing-ngram-512-v1"
    assert table["cosines"][1][2] == pytest.approx(0.44, abs=0.01)
    wrong = CliRunner().invoke(app, [*words, "--encoder", "hash"])
    assert "nearest: hashing" in str(wrong.exception)
