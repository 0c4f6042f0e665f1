"""The YAML of a pseudo-label run: what it may hold, and what is said where it holds something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.pseudo_label_spec import PseudoLabelSpec, make_spec, read_spec, spec_values

WHOLE = """
cohort: incoming
models: [models:/universal/3, models:/universal/4]
classes: [Liver, spleen, liver tumor]
cleaning: [all, -holes]
bars: {accept: 0.85, reject: 0.4}
export: {formats: [nifti, seg_nrrd], profile: public}
report: {title: Incoming scans, pictures: false}
"""


def test_a_file_says_all_there_is_to_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(WHOLE)
    spec = make_spec(read_spec(file), file.name)
    assert spec.cohort == "incoming"
    assert spec.models == ("models:/universal/3", "models:/universal/4")
    assert spec.classes == ("liver", "spleen", "liver_tumor")
    assert spec.cleaning == "all,-holes"
    assert (spec.bars.accept, spec.bars.reject) == (0.85, 0.4)
    assert (spec.export.formats, spec.export.profile) == (("nifti", "seg_nrrd"), "public")
    assert (spec.report.title, spec.report.pictures) == ("Incoming scans", False)
    assert make_spec(spec_values(spec)) == spec  # what is written down with a run is a spec again


def test_the_example_of_the_documents_is_a_spec() -> None:
    text = (Path(__file__).parents[2] / "docs" / "pseudo_label.md").read_text()
    lines = text[text.index("    cohort: clinic") : text.index("Scheduled,")].splitlines()
    spec = make_spec(yaml.safe_load("\n".join(line.removeprefix("    ") for line in lines)))
    assert spec.export.formats == ("nifti", "dicom_seg")
    assert spec.classes == ("liver", "liver_tumor", "spleen")


def test_the_command_line_wins_over_the_file() -> None:
    spec = make_spec({"cohort": "incoming", "models": "champion"}, cohort="clinic", models=["3"], classes=["liver"])
    assert spec == PseudoLabelSpec("clinic", ("3",), ("liver",))
    assert make_spec({}, cohort="clinic") == PseudoLabelSpec("clinic")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cohort": "c", "model": "champion"}, "unknown key 'model'; nearest: models"),
        ({"cohort": "c", "export": {"format": ["nifti"]}}, "run.yaml: export: unknown key 'format'; nearest: formats"),
        ({"cohort": "c", "bars": {"acept": 0.8}}, "unknown key 'acept'; nearest: accept"),
        ({"cohort": "c", "classes": ["livr"]}, "unknown class 'livr'; nearest: liver"),
    ],
)
def test_an_unknown_key_or_class_names_the_nearest(values: dict[str, object], words: str) -> None:
    with pytest.raises(KeyError) as found:
        make_spec(values, "run.yaml")
    assert words in found.value.args[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "found no cohort"),
        ({"cohort": "c", "bars": {"accept": 85}}, "bars: accept: found 85, expected an expected DSC between 0 and 1"),
        ({"cohort": "c", "bars": {"accept": 0.4, "reject": 0.6}}, "accept 0.4 is below reject 0.6"),
        ({"cohort": "c", "bars": 0.8}, "bars: found 0.8, expected keys: accept, reject"),
        ({"cohort": "c", "classes": {"liver": 1}}, "expected a list of names"),
        ({"cohort": "c", "classes": []}, "classes: found none"),
        ({"cohort": "c", "models": []}, "models: found none"),
        ({"cohort": "c", "models": ["3", "3"]}, "repeats one"),
        ({"cohort": "c", "report": {"pictures": "no"}}, "expected true or false"),
        ({"cohort": 7}, "cohort: found 7, expected a name"),
    ],
)
def test_a_bad_value_is_told_with_its_place(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as found:
        make_spec(values, "run.yaml")
    assert words in str(found.value)


def test_a_file_that_is_none_or_holds_no_keys_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a YAML file"):
        read_spec(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- clinic\n")
    with pytest.raises(ValueError, match="found list, expected keys"):
        read_spec(tmp_path / "list.yaml")
