"""`ctfactory export`: what it refuses before anything starts."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flows.cli import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ward", "--include", "rejected"], "--include rejected: expected `review`"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code != 0
    assert said in f"{result.output} {result.exception}"


def test_help_names_every_format_and_profile() -> None:
    told = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).output
    for word in (
        "nifti_per_class",
        "seg_nrrd",
        "dicom_seg",
        "rtstruct",
        "abdomenatlas",
        "commercial",
        "--keep-patient",
    ):
        assert word in told
