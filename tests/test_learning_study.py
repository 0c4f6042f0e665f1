"""The learning study: what its sources hand out, how its jobs run and stop, and what its rows are said to show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning_claims import Figure, Rows, all_claims, class_dsc, later_classes, mean_dsc, rarest
from benchmarks.learning_data import Study, StudyScan, StudySource, load_study, save_study
from benchmarks.learning_jobs import COLLECTION, Budget, Job, all_jobs, arms_of, read_rows, run_job, write_row
from benchmarks.learning_pool import Plan, run_jobs
from benchmarks.learning_report import write_report
from datasets_registry.taxonomy import class_info
from models.sampling import PatchSampler, PatchSource
from models.settings import ModelSettings, TrainSettings

ROOT = Path(__file__).parent.parent
LIVER, SPLEEN, AORTA = (class_info(name).channel for name in ("liver", "spleen", "aorta"))


def _scan(case_id: str, dataset: str, annotated: tuple[str, ...], *, held_out: bool = False) -> StudyScan:
    image = np.full((7, 6, 5), -100, np.int16)
    bits = np.zeros((1, 7, 6, 5), np.uint32)
    for channel, box, hu in ((LIVER, np.s_[0:2, 1:3, 1:4], 110), (SPLEEN, np.s_[4:6, 1:3, 1:4], 140)):
        image[box] = hu
        bits[0][box] |= np.uint32(1 << channel)
    return StudyScan(case_id, dataset, annotated, held_out, image, bits)


def _study() -> Study:
    """Every set of the collection with one scan to train on and one held out; each says liver or spleen."""
    sets = (*COLLECTION, "word")
    scans = [
        _scan(f"{name}/{number}", name, ("liver",) if place % 2 else ("spleen",), held_out=number == 1)
        for place, name in enumerate(sets)
        for number in range(2)
    ]
    return Study(tuple(scans), (6.0, 6.0, 6.0))


def _source(labels) -> StudySource:
    return StudySource([_scan("a/1", "a", ("liver",))], ("spleen", "liver", "aorta"), labels)


def test_study_file_gives_back_what_was_written(tmp_path):
    study = _study()
    save_study(tmp_path / "study.npz", study)
    found = load_study(tmp_path / "study.npz")
    assert found.spacing_mm == (6.0, 6.0, 6.0)
    assert [(s.case_id, s.dataset, s.annotated, s.held_out) for s in found.scans] == [
        (s.case_id, s.dataset, s.annotated, s.held_out) for s in study.scans
    ]
    np.testing.assert_array_equal(found.scans[3].image, study.scans[3].image)
    np.testing.assert_array_equal(found.scans[3].bits, study.scans[3].bits)


def test_missing_study_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare"):
        load_study(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("labels", "annotated", "seen"),
    [
        ("partial", {LIVER}, {LIVER}),
        ("full", {LIVER, SPLEEN, AORTA}, {LIVER, SPLEEN}),
        ("naive", {LIVER, SPLEEN, AORTA}, {LIVER}),
    ],
)
def test_each_kind_of_labels_says_and_shows_its_own(labels, annotated, seen):
    source = _source(labels)
    assert isinstance(source, StudySource)
    (case,) = source.cases()
    assert set(case.annotated) == annotated
    assert set(case.foreground) == seen
    _, bits, _ = source.read("a/1", (0, 0, 0), (7, 6, 5))
    assert int(np.bitwise_or.reduce(bits, axis=None)) == sum(1 << channel for channel in seen)


def test_a_scan_that_annotates_nothing_of_the_study_is_left_out():
    assert StudySource([_scan("a/1", "a", ("bladder",))], ("liver",), "partial").cases() == []


def test_a_patch_that_leaves_the_scan_is_air_without_labels_there():
    image, bits, inside = _source("partial").read("a/1", (-1, 2, 3), (4, 2, 4))
    assert image.shape == (4, 2, 4)
    assert (image[0] == -1024).all()
    assert (image[:, :, 2:] == -1024).all()
    # X 1, 2 of the patch are 0, 1 of the scan, where the liver lies at Y 2 and Z 3
    assert image[:, :, 0].tolist() == [[-1024, -1024], [110, -100], [110, -100], [-100, -100]]
    assert bits[0, :, :, 0].tolist() == [[0, 0], [1 << LIVER, 0], [1 << LIVER, 0], [0, 0]]
    assert inside == (slice(1, 4), slice(0, 2), slice(0, 2))


def test_the_sampler_draws_from_the_study():
    source: PatchSource = _source("naive")
    model = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(8, 8, 8))
    batch = PatchSampler(source, model, TrainSettings(batch=2)).batch(0)
    assert batch.annotated.all()
    assert batch.target.sum(dim=(0, 2, 3, 4)).tolist() == [0, 2 * 12, 0]


def test_arms_cover_the_sets_and_jobs_come_claim_by_claim():
    study = _study()
    arms = arms_of(study)
    assert arms["only kits"].classes == ("liver",)
    assert arms["only kits"].datasets == ("kits",)
    jobs = [job.name for job in all_jobs(study, (0, 1))]
    assert jobs[:4] == ["partial-0", "full-0", "naive-0", "partial-1"]
    assert jobs[6].startswith("only-")
    assert len(jobs) == len(set(jobs)) == 2 * len(arms)


def _row(arm: str, seed: int, dsc: dict[str, float], **more) -> dict:
    scores = {name: {"kits": [value, 2], "word": [value, 1]} for name, value in dsc.items()}
    cases = {name: 10 + place for place, name in enumerate(dsc)}
    row = {"job": Job(arm, seed).name, "arm": arm, "seed": seed, "steps": 5, "batch": 2, "device": "cpu"}
    return {**row, "annotated_cases": cases, "seconds": {"training": 1.0}, "dsc": scores, **more}


def _all_rows() -> list[dict]:
    rows = []
    for seed in range(2):
        rows += [
            _row("partial", seed, {"liver": 0.9, "spleen": 0.8}),
            _row("full", seed, {"liver": 0.9, "spleen": 0.84}),
            _row("naive", seed, {"liver": 0.5, "spleen": 0.7}),
            _row(
                "extended",
                seed,
                {"liver": 0.9},
                extension={
                    "classes": ["aorta"],
                    "largest_change": 0.0,
                    "dsc": {"liver": {"kits": [0.9, 2], "word": [0.9, 1]}, "aorta": {"kits": [0.5 + 0.3 * seed, 3]}},
                },
            ),
            _row("tail as it comes", seed, {"bladder": 0.4, "rectum": 0.5, "aorta": 0.6, "liver": 0.90}),
            _row("tail weighted", seed, {"bladder": 0.5, "rectum": 0.7, "aorta": 0.8, "liver": 0.87}),
            *(_row(f"only {name}", seed, {"liver": 0.88}) for name in COLLECTION),
            {"job": f"inference-{seed}", "seed": seed, "device": "cpu", "one": 0.1, "many": 0.5},
        ]
    return rows


def test_claims_by_hand():
    partial, one, later, tail = all_claims(Rows(_all_rows()))
    figures = {figure.what: figure for claim in (partial, one, later, tail) for figure in claim.figures}
    assert figures["partial / full"].mean == pytest.approx(0.85 / 0.87)
    assert figures["partial - naive"].mean == pytest.approx(0.25)
    assert partial.holds is True
    assert figures["one - each, scans of all sets"].mean == pytest.approx(0.02)
    assert figures["one - each, each set's own scans only"].mean == pytest.approx(
        0.02
    )  # only kits has scans of its own
    assert figures["times faster"].mean == pytest.approx(5.0)
    assert one.holds is True
    assert figures["DSC of the new class aorta"].values == pytest.approx((0.5, 0.8))
    assert figures["DSC of the new class aorta"].spread == pytest.approx(0.3 / 2**0.5)
    assert later.holds is True
    assert figures["weighted: gain of rectum"].mean == pytest.approx(0.2)
    assert figures["weighted: change of liver, the other class that loses most"].mean == pytest.approx(-0.03)
    assert tail.holds is False


def test_any_change_of_an_old_class_breaks_the_claim():
    rows = _all_rows()
    extended = next(row for row in rows if row.get("arm") == "extended")
    extended["extension"]["dsc"]["liver"]["word"] = [0.899, 1]
    assert later_classes(Rows(rows)).holds is False
    extended["extension"]["dsc"]["liver"]["word"] = [0.9, 1]
    extended["extension"]["largest_change"] = 1e-7
    assert later_classes(Rows(rows)).holds is False


def test_a_claim_without_rows_is_not_measured():
    assert [claim.holds for claim in all_claims(Rows([]))] == [None] * 4


def test_means_weigh_scans_and_leave_out_classes_nobody_shows():
    scores = {"liver": {"kits": [0.9, 2], "word": [0.6, 1]}, "rectum": {"word": [0.4, 1]}, "bladder": {}}
    assert class_dsc(scores, "liver") == pytest.approx(0.8)
    assert class_dsc(scores, "liver", ["word"]) == pytest.approx(0.6)
    assert np.isnan(class_dsc(scores, "bladder"))
    assert mean_dsc(scores) == pytest.approx(0.6)


def test_rarest_are_those_annotated_least():
    assert rarest({"annotated_cases": {"liver": 30, "rectum": 3, "aorta": 10, "bladder": 15}}, 2) == ["rectum", "aorta"]


def test_bars_are_said_as_they_are_judged():
    assert Figure("x", (0.1, 0.3), at_least=0.2).holds is True
    assert Figure("x", (0.0,), above=0.0).holds is False
    assert Figure("x", (1e-9,), at_most=0.0).holds is False
    assert Figure("x", (0.1,), at_least=-0.02).bar == "at least -0.02"
    assert Figure("x", (0.1,)).holds is None


def test_report_is_made_from_the_rows_and_again_from_those_kept(tmp_path):
    for row in _all_rows():
        write_row(tmp_path / "run" / "jobs" if "arm" in row else tmp_path / "run", row)
    docs = tmp_path / "docs"
    page, picture, kept = write_report(tmp_path / "run", docs)
    text = page.read_text()
    assert "| partial / full | 0.977 | 0.000 | 0.977, 0.977 | at least 0.95 | yes |" in text
    assert "change of liver, the other class that loses most: -0.030, expected at least -0.02" in text
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert len(json.loads(kept.read_text())) == len(_all_rows())
    write_report(None, docs)
    assert page.read_text() == text


def test_report_without_rows_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no rows"):
        write_report(tmp_path, tmp_path / "docs")


def _pretend(job: Job, study: Study, budget: Budget, work: Path) -> dict:
    if job.arm == "naive":
        raise ValueError("on purpose")
    if job.arm == "full":
        time.sleep(60)
    if job.arm == "tail even":
        os._exit(3)
    return {"job": job.name, "arm": job.arm, "seed": job.seed, "steps": budget.steps, "batch": budget.batch}


def _plan(tmp_path: Path, seconds: float) -> Plan:
    save_study(tmp_path / "study.npz", _study())
    return Plan(tmp_path / "study.npz", tmp_path, tmp_path / "work", 1, seconds, time.time())


class _Soon(Plan):
    """The time is up as soon as a first job is done."""

    @property
    def left(self) -> float:
        return 0.0 if (self.rows / "partial-0.json").is_file() else 1.0


def test_jobs_done_are_kept_and_a_failure_stops_no_other(tmp_path, capsys):
    plan, budget = _plan(tmp_path, 600), Budget(3, 2, "cpu", 1)
    write_row(plan.rows, {"job": "partial-0", "arm": "partial", "seed": 0, "steps": 3, "batch": 2, "here": "before"})
    jobs = [Job("naive", 0), Job("partial", 0), Job("extended", 0), Job("tail even", 0)]
    assert run_jobs(plan, jobs, budget, _pretend) == (2, 2)
    told = capsys.readouterr().out
    assert "tail-even-0; processes ended with 3" in told
    rows = {row["job"]: row for row in read_rows(plan.rows)}
    assert rows["partial-0"]["here"] == "before"
    assert rows["extended-0"]["steps"] == 3
    with pytest.raises(ValueError, match="rows of 3 steps of 2 patches are there, asked for 4 of 2"):
        run_jobs(plan, jobs, Budget(4, 2, "cpu", 1), _pretend)


def test_the_time_ends_a_job_under_way_and_keeps_what_is_done(tmp_path):
    plan = _plan(tmp_path, 600)
    jobs = [Job("partial", 0), Job("full", 0)]
    assert run_jobs(_Soon(**vars(plan)), jobs, Budget(3, 2, "cpu", 1), _pretend) == (1, 0)


def test_a_job_trains_scores_and_leaves_its_row(tmp_path):
    study = _study()
    row = run_job(Job("only kits", 0), study, Budget(1, 1, "cpu", 1), tmp_path)
    assert row["annotated_cases"] == {"liver": 1}
    assert row["dsc"]["liver"].keys() == {"kits"}
    assert (tmp_path / "only-kits-0" / "model.safetensors").is_file()
    json.dumps(row)


def test_running_needs_none_of_the_lakes_libraries():
    code = (
        "import sys, benchmarks.learning_pool, benchmarks.learning_timing;"
        "print(sorted({'monai', 'zarr', 'nibabel', 'SimpleITK', 'deltalake', 'pydantic_settings', 'prefect', 'mlflow',"
        " 'dask', 'catalog', 'tasks'} & {name.split('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"
