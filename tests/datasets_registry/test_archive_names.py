"""Which member names may become files, and that no name whatever leads outside the folder."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

import pytest
from archive_samples import contents, extracted, tar_of, tree, zip_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets_registry.archives.names import MemberNames
from imaging.errors import BadInput

REFUSED = {
    "../evil": "leaves its folder",
    "a/../../evil": "leaves its folder",
    "a/..": "leaves its folder",
    "/etc/passwd": "absolute",
    "//server/share": "absolute",
    "C:evil": "drive letter",
    "c:/evil": "drive letter",
    "..\\evil": "backslash",
    "a\\b": "backslash",
    "\\\\server\\share": "backslash",
    "a\0b": "NUL",
    "a\nb": "control",
    "a\x1b[2Jb": "control",
    "a\x85b": "control",
    "gii.\u202etxt": "direction",
    "a\udcffb": "UTF-8",
    "x" * 256: "256 bytes",
    "/".join("d" * 70): "70 levels",
    "": "without a name",
    ".": "without a name",
    "./": "without a name",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_breaks_a_rule_is_refused_with_member_and_rule(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        MemberNames().admit("a.zip", name, is_folder=False)
    assert caught.value.code == "archive_member"
    assert caught.value.where.startswith("a.zip, member '")
    assert REFUSED[name] in caught.value.found
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "path"),
    {
        "a/b.nii.gz": "a/b.nii.gz",
        "./a//b": "a/b",
        "..a/b..": "..a/b..",
        "Pat\u00e9/Scan 1 (2).dcm": "Pat\u00e9/Scan 1 (2).dcm",
        "10:30/x": "10:30/x",
    }.items(),
)
def test_an_odd_but_harmless_name_passes(name: str, path: str) -> None:
    assert MemberNames().admit("a.zip", name, is_folder=False) == PurePosixPath(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/b", "a/b"),
        ("a/b", "a/./b"),
        ("Case.nii", "case.NII"),
        ("caf\u00e9", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/x", "a/y"),
    ],
)
def test_two_names_of_one_file_are_refused(first: str, second: str) -> None:
    names = MemberNames()
    names.admit("a.zip", first, is_folder=False)
    with pytest.raises(BadInput, match="the same file as"):
        names.admit("a.zip", second, is_folder=False)


def test_a_folder_may_be_listed_again_and_a_reserved_name_not() -> None:
    names = MemberNames((".unpacked.json",))
    for _ in range(2):
        assert names.admit("a.tar", "a/", is_folder=True) == PurePosixPath("a")
    assert names.admit("a.tar", "./", is_folder=True) == PurePosixPath()
    assert names.admit("a.tar", "a/.unpacked.json", is_folder=False) == PurePosixPath("a/.unpacked.json")
    with pytest.raises(BadInput, match="unpacking itself uses"):
        names.admit("a.tar", ".UNPACKED.json", is_folder=False)


PART = st.sampled_from(["..", ".", "", "a", "A", "b", "C:", "\\", "..\\", "\0", "__MACOSX", "._a", "\u00e9", "e\u0301"])
NAME = st.one_of(
    st.lists(PART, min_size=1, max_size=6).map("/".join),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12),
)


@settings(max_examples=120, deadline=None)
@given(names=st.lists(NAME, min_size=1, max_size=4, unique=True), packed=st.sampled_from(["zip", "tar"]))
@example(names=["../../x"], packed="zip")
@example(names=["a/../../../x"], packed="tar")
@example(names=["/tmp/ctfactory-must-not-exist"], packed="tar")
def test_nothing_is_ever_written_outside_the_folder(names: list[str], packed: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make = {"zip": zip_of, "tar": tar_of}[packed]
        archive = make(root / "a", {name: name.encode() for name in names})
        folder = root / "deep" / "er" / "out"
        try:
            done = extracted(archive, folder)
        except BadInput:
            pass
        else:
            assert len(contents(folder)) == done.tally.files > 0
        outside = {path for path in tree(root) if not path.is_relative_to("deep/er/out")}
        assert outside == {Path("a")}
        assert not Path("/tmp/ctfactory-must-not-exist").exists()
