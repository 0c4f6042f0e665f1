"""What a pseudo-label run is to do: which cases, by which teacher, which classes, judged by what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets_registry.class_rules import rule_switches
from datasets_registry.taxonomy import class_info
from models.infer_network import default_precision
from models.postprocess import rules_digest
from tasks.calibration import Calibration
from tasks.calibration_run import load_calibration
from tasks.decide import Bars, bars_of
from tasks.export import DICOM_FORMATS, check_formats
from tasks.licences import LabelLicence, check_profile, strictest
from tasks.notices import tell
from tasks.plausibility_reference import HumanReference, human_reference
from tasks.pseudo_label_spec import ExportSpec, PseudoLabelSpec
from tasks.settings import Settings, with_values
from tasks.splits import seen_in_training
from tasks.teacher import Teacher, cases_seen, fetch_teacher
from tasks.workspace import Workspace, open_workspace, row_dicts

PSEUDO_LABELLER_VERSION = "3"
"""Part of every annotation's name: raise it when prediction changes; cleaning has a digest of its own there."""

SHOWN_SEEN = 5
"""Cases seen in training that the warning names."""


@dataclass(frozen=True, eq=False)
class LabelRun:
    """What all cases of a run share.

    classes: that are predicted, in channel order. base: what the annotations of equal weights, rules, overlap and
    precision begin with. settings: with what the spec says in place of theirs, as workers get them. calibration: None
    where the teacher has none.
    """

    spec: PseudoLabelSpec
    teacher: Teacher
    classes: tuple[str, ...]
    base: str
    export_folder: Path
    settings: Settings
    reference: HumanReference
    calibration: Calibration | None
    bars: Bars
    flow_run_id: str | None = None

    def annotation(self, classes: Sequence[str]) -> str:
        """Return the name under which the masks of a case are stored of which `classes` get label rows.

        The masks stored are those of all classes of the run, whoever has annotated some of them: so they, and this
        name, follow from the run and from `classes` alone, and a run that was killed finds what it wrote. The name
        ends with `judged_by`, for rows are never edited: another calibration decides under a name of its own.
        """
        if tuple(classes) == self.classes == self.teacher.classes:
            return f"{self.base}-{self.judged_by}"
        return f"{self.base}-{_digest([self.classes, list(classes)])[:8]}-{self.judged_by}"

    @property
    def judged_by(self) -> str:
        """Six hexadecimal digits that name the calibration and the bars: equal ones decide equally."""
        return _digest([None if self.calibration is None else self.calibration.run_id, asdict(self.bars)])[:6]


@dataclass(frozen=True)
class PseudoLabelRequest:
    """One case to label: its `cases` row, whether the teacher had not seen it (None: not known), and its licence."""

    case: dict[str, Any]
    independent: bool | None
    licence: LabelLicence

    @property
    def case_id(self) -> str:
        """The case's id."""
        return str(self.case["case_id"])


def plan_cohort(
    spec: PseudoLabelSpec, settings: Settings, *, flow_run_id: str | None = None
) -> tuple[LabelRun, list[PseudoLabelRequest]]:
    """Return what the run shares, and one request per case of the cohort, a data set of the lake, sorted by case.

    A case that the teacher was trained on is warned of. Raises LookupError for a cohort that is not in the lake or a
    version that is not in the registry, KeyError for an unknown class, and ValueError for a class the teacher does not
    have, for a teacher whose classes are not those of the class table, and where the export profile forbids what would
    be written.
    """
    require_cases(open_workspace(settings), spec.cohort)
    teacher, versions = fetch_teacher(spec.models, settings)
    calibration = load_calibration(versions[0], settings) if len(versions) == 1 else None
    return plan_with(spec, teacher, settings, cases_seen(versions, settings), calibration, flow_run_id=flow_run_id)


def plan_with(
    spec: PseudoLabelSpec,
    teacher: Teacher,
    settings: Settings,
    trained_on: Sequence[str] | None,
    calibration: Calibration | None = None,
    *,
    flow_run_id: str | None = None,
) -> tuple[LabelRun, list[PseudoLabelRequest]]:
    """Return what `plan_cohort` does, for a teacher at hand. trained_on: ids of its training cases, None: not known."""
    settings = with_spec(settings, spec)
    workspace = open_workspace(settings)
    cases = require_cases(workspace, spec.cohort)
    classes = _chosen(spec, teacher)
    seen: dict[str, str] = {}
    if trained_on is not None:
        seen = dict(seen_in_training(workspace, [str(case["case_id"]) for case in cases], trained_on))
        _warn_of_seen(seen, teacher, len(cases))
    requests = []
    for case in cases:
        case_id = str(case["case_id"])
        licence = strictest(case["licence"], teacher.licence, case["non_commercial"])
        check_profile(spec.export.profile, licence, case_id)
        requests.append(PseudoLabelRequest(case, None if trained_on is None else case_id not in seen, licence))
    _check_export(spec.export)
    run = LabelRun(
        spec=spec,
        teacher=teacher,
        classes=classes,
        base=base_name(teacher, settings),
        export_folder=settings.workspace.absolute() / "exports" / spec.cohort / f"v{teacher.version}",
        settings=settings.for_workers(),
        reference=human_reference(workspace),
        calibration=calibration,
        bars=bars_of(settings),
        flow_run_id=flow_run_id,
    )
    return run, requests


def require_cases(workspace: Workspace, cohort: str) -> list[dict[str, Any]]:
    """Return the `cases` rows of a cohort, by case; LookupError, with what there is, where it has none."""
    cases = workspace.tables.cases(dataset=cohort)
    if cases.empty:
        there = sorted(set(workspace.tables.cases(columns=["dataset"])["dataset"]))
        held = f"which holds {', '.join(there)}" if there else "which is empty"
        raise LookupError(
            f"cohort {cohort!r} has no case in the lake, {held}; ingest it first: ctfactory ingest local --source "
            f"FOLDER --cohort {cohort}"
        )
    return row_dicts(cases)


def with_spec(settings: Settings, spec: PseudoLabelSpec) -> Settings:
    """Return the settings with what a spec says of cleaning and bars in place of theirs; ValueError for a bad one."""
    return with_values(settings, cleaning=spec.cleaning, accept_dsc=spec.bars.accept, reject_dsc=spec.bars.reject)


def _check_export(export: ExportSpec) -> None:
    """Raise before any work what each case's export would raise after its prediction."""
    check_formats(export.formats)
    if export.source is not None and not Path(export.source).is_dir():
        raise FileNotFoundError(f"export: source: {export.source}: no such folder; give that of the DICOM series")
    wanted = [name for name in export.formats if name in DICOM_FORMATS]
    if wanted and export.source is None:
        raise ValueError(
            f"export: {', '.join(wanted)} refer to the scan's DICOM series, found no source; give the folder that the "
            "cohort was ingested from as `export: {source: FOLDER}`"
        )


def _chosen(spec: PseudoLabelSpec, teacher: Teacher) -> tuple[str, ...]:
    chosen = teacher.classes if spec.classes is None else spec.classes
    for name in chosen:
        class_info(name)
    if unknown := [name for name in chosen if name not in teacher.classes]:
        raise ValueError(
            f"{teacher.title} was not trained on {', '.join(unknown)}; it was trained on {', '.join(teacher.classes)}"
        )
    return tuple(name for name in teacher.classes if name in chosen)


def _warn_of_seen(seen: dict[str, str], teacher: Teacher, cases: int) -> None:
    if seen:
        named = ", ".join(list(seen)[:SHOWN_SEEN]) + (" ..." if len(seen) > SHOWN_SEEN else "")
        tell(
            f"{teacher.title} was trained on {len(seen)} of these {cases} scans, or on twins of them ({named}): their "
            "scores are marked as not independent, and say little about scans it has not seen"
        )


def base_name(teacher: Teacher, settings: Settings) -> str:
    """Return what the annotations of equal weights, rules, overlap and precision begin with, whatever the classes."""
    precision = settings.predict_precision or default_precision(settings.torch_device())
    rules = rules_digest(rule_switches(settings.cleaning), teacher.classes)
    made_by = [PSEUDO_LABELLER_VERSION, teacher.uris, teacher.digests, rules, settings.window_overlap, precision]
    return f"pseudo-v{teacher.version[:40]}-{_digest(made_by)[:8]}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
