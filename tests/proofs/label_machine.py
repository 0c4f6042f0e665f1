"""Labels against a model of them: whatever people, models and reviewers do, what counts is what a few lists say."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from label_steps import CLASSES, DECISIONS, LabelWriter, drawn
from lake_steps import SHIPPED, bits_of, case_name, key_of

from catalog import queries
from catalog.review_queue import review_queue
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel

CASES = st.sampled_from("ab")
VERSIONS = st.sampled_from(sorted(SHIPPED))
ANNOTATIONS = st.sampled_from(sorted(DECISIONS))
NAMES = st.sampled_from(CLASSES)
RUNS = st.sampled_from([f"flow-{n}" for n in (1, 2, 3)] + [f"models:/universal/{n}" for n in (1, 2, 3)])


@dataclass
class Label:
    """One label: by whom, when, and what was decided about it. retractions: the runs by which it is taken back."""

    case: str
    version: int
    name: str
    annotation: str
    kind: str  # human, pseudo, import
    order: int
    decision: str | None = None
    verdict: str | None = None
    retractions: set[str] = field(default_factory=set)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Case, key, annotation, class."""
        return case_name(self.case), key_of(self.version), self.annotation, self.name

    @property
    def seen(self) -> bool:
        """Whether a person looked at it."""
        return self.kind == "import" or self.verdict == "accepted"

    @property
    def stands(self) -> bool:
        """Whether it is in use and was not rejected."""
        if self.kind == "human":
            return True
        refused = self.verdict == "rejected" or (self.decision == "reject" and self.verdict != "accepted")
        return not self.retractions and not refused

    def place(self) -> tuple[int, int]:
        """Return where it stands in line: human, reviewed (and not rejected since), pseudo; the newest first."""
        return (0 if self.kind == "human" else 1 if self.seen and self.verdict != "rejected" else 2), -self.order


@dataclass
class Model:
    """history: of each case its versions, oldest first, and whether withdrawn. labels: every one there ever was."""

    history: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    steps: int = 0

    def current(self) -> dict[str, int]:
        """Return the version of each case in use."""
        return {case: rows[-1][0] for case, rows in self.history.items() if not rows[-1][1]}

    def add(self, case: str, version: int, annotation: str, kind: str, classes: dict[str, str | None]) -> None:
        """Add an annotation, unless it is there."""
        self.steps += 1
        if not any((one.case, one.version, one.annotation) == (case, version, annotation) for one in self.labels):
            self.labels += [
                Label(case, version, name, annotation, kind, self.steps, decision) for name, decision in classes.items()
            ]

    def of(self, case: str, name: str | None = None) -> list[Label]:
        """Return the labels on the current version of a case in use."""
        version = self.current().get(case)
        return [one for one in self.labels if (one.case, one.version) == (case, version) and name in (None, one.name)]

    def lines(self) -> Iterator[tuple[str, list[Label]]]:
        """Give the labels in line of each case in use and class that has some."""
        for case in sorted(self.current()):
            for name in CLASSES:
                if found := sorted(self.of(case, name), key=Label.place):
                    yield case, found

    def effective(self) -> set[tuple[str, str, str, str]]:
        """Return the labels that count."""
        return {next(one for one in line if one.stands).key for _, line in self.lines() if any(x.stands for x in line)}

    def learnt(self, trusted: str) -> set[tuple[str, str, str, str]]:
        """Return the pseudo-labels to learn from."""
        found = set()
        for _, line in self.lines():
            if not any(one.kind == "human" for one in line):
                good = [x for x in line if x.stands and (x.seen or (trusted == "accepted" and x.decision == "accept"))]
                found |= {one.key for one in good[:1]}
        return found

    def waiting(self) -> set[tuple[str, str, str, str]]:
        """Return the labels that wait for a reviewer, whatever the factory decided."""
        found = set()
        for _, line in self.lines():
            there = [one for one in line if not one.retractions]
            if not any(one.kind == "human" or (one.seen and one.verdict != "rejected") for one in there):
                found |= {one.key for one in [x for x in there if x.verdict is None and x.kind == "pseudo"][:1]}
        return found

    def made_by(self, run: str) -> list[Label]:
        """Return the labels of a run, on whatever version of a case."""
        number = run[-1] if run.startswith(("flow-", "models:/")) else None
        return [
            one
            for one in self.labels
            if one.kind != "human" and one.annotation == (run if number is None else f"pseudo-{number}")
        ]


class LabelMachine(RuleBasedStateMachine):
    """Steps on a real lake, compared with `Model` after each."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="labels_"))
        self.writer = LabelWriter(self.root)
        self.model = Model()
        self.moments: list[tuple[dict[str, int], Model]] = []
        self.masks: dict[str, tuple[tuple[str, ...], Any]] = {}
        self.imports: set[str] = set()

    def teardown(self) -> None:
        """Read every label that ever was, look back at every moment, and remove the lake."""
        self.read_everything()
        self.look_back()
        shutil.rmtree(self.root)

    @initialize(a=VERSIONS, b=VERSIONS, one=ANNOTATIONS, other=ANNOTATIONS)
    def begin(self, a: int, b: int, one: str, other: str) -> None:
        """Two cases, and models that labelled them: so that few steps find something to do."""
        self.ingest("a", a)
        self.ingest("b", b)
        for case in "ab":
            self.pseudo_label(case, one)
        self.pseudo_label("a", other)

    @rule(case=CASES, version=VERSIONS)
    def ingest(self, case: str, version: int) -> None:
        """A new version of a case, with what people annotated on it."""
        rows = self.model.history.get(case)
        new = self.writer.ingest(case, version)
        assert new == (rows is None or (not rows[-1][1] and rows[-1][0] != version))
        if new:
            self.model.history.setdefault(case, []).append((version, False))
            self.model.add(case, version, "shipped", "human", dict.fromkeys(SHIPPED[version]))

    @rule(case=CASES, annotation=ANNOTATIONS)
    def pseudo_label(self, case: str, annotation: str) -> None:
        """A model labels a case, or does so again."""
        version = self.model.current().get(case)
        if version is not None:
            self.writer.pseudo(case, version, annotation)
            self.model.add(case, version, annotation, "pseudo", DECISIONS[annotation])

    @rule(case=CASES, name=NAMES, before=ANNOTATIONS, after=ANNOTATIONS)
    def accept_and_label_again(self, case: str, name: str, before: str, after: str) -> None:
        """What a reviewer accepted is not hidden by the next model."""
        self.pseudo_label(case, before)
        self.review(case, name, "accepted")
        self.pseudo_label(case, after)

    @rule(case=CASES, name=NAMES, verdict=st.sampled_from(["accepted", "rejected"]))
    def review(self, case: str, name: str, verdict: Any) -> None:
        """A reviewer speaks about the label that is first in line."""
        line = [one for one in self.model.of(case, name) if one.kind != "human" and not one.retractions]
        if not line:
            return
        first = min(line, key=Label.place)
        new = [first.annotation] if first.verdict != verdict else []
        assert self.writer.judge(case, name, verdict) == new
        first.verdict = verdict

    @rule(case=CASES, classes=st.lists(NAMES, min_size=1, max_size=2, unique=True), seed=st.integers(0, 1))
    def correct(self, case: str, classes: list[str], seed: int) -> None:
        """A reviewer brings a corrected mask, of classes that nobody annotated."""
        human = {one.name for one in self.model.of(case) if one.kind == "human"}
        names = tuple(name for name in classes if name not in human)
        version = self.model.current().get(case)
        if version is None or not names:
            return
        made = self.writer.correct(case, names, seed)
        self.masks[made.annotation] = (names, drawn(case, names, seed))
        self.imports.add(made.run_id)
        self.model.add(case, version, made.annotation, "import", dict.fromkeys(names))

    @rule(run=RUNS)
    def retract(self, run: str) -> None:
        """A run's labels are taken back."""
        self._retract(run)

    @precondition(lambda self: self.imports)
    @rule(data=st.data())
    def retract_an_import(self, data: st.DataObject) -> None:
        """A correction is taken back."""
        self._retract(data.draw(st.sampled_from(sorted(self.imports))))

    def _retract(self, run: str) -> None:
        made = self.model.made_by(run)
        if not made:
            return
        expected = {one.key for one in made if run not in one.retractions}
        assert self.writer.retract(run) == expected
        for one in made:
            one.retractions.add(run)

    @rule(run=RUNS)
    def bring_back(self, run: str) -> None:
        """A retraction is undone; others of the same labels stay."""
        self.bring_back_of(run)

    def bring_back_of(self, run: str) -> None:
        """Undo the retraction of a run, where there is one."""
        back = [one for one in self.model.labels if run in one.retractions]
        if back:
            assert self.writer.bring_back(run) == {one.key for one in back}
            for one in back:
                one.retractions.discard(run)

    @rule(number=st.integers(1, 3), first=st.booleans())
    def retract_by_two_names(self, number: int, first: bool) -> None:
        """A model's labels are taken back twice, by its name and by its run, and one of the two is undone."""
        runs = (f"flow-{number}", f"models:/universal/{number}")
        for run in runs:
            self._retract(run)
        self.bring_back_of(runs[first])

    @rule(run=RUNS)
    def retract_and_bring_back(self, run: str) -> None:
        """Both, one after the other, are as if nothing had been done."""
        if self.model.made_by(run) and not any(run in one.retractions for one in self.model.labels):
            before = self._effective()
            self.writer.retract(run)
            self.writer.bring_back(run)
            assert self._effective() == before

    @rule(case=CASES, back=st.booleans())
    def withdraw_or_restore(self, case: str, back: bool) -> None:
        """A case is taken out of use, or comes back."""
        if case in self.model.history:
            version, withdrawn = self.model.history[case][-1]
            (self.writer.restore if back else self.writer.withdraw)(case)
            if withdrawn == back:
                self.model.history[case].append((version, not back))

    @rule()
    def remember(self) -> None:
        """Note the versions of the tables, as a run does."""
        self.moments.append((self.writer.tables.versions(), deepcopy(self.model)))

    @rule()
    def reopen(self) -> None:
        """Small files joined, what no row names removed, and all that the process knew forgotten."""
        self.writer.compact()
        assert self.writer.gc() == []
        self.writer = LabelWriter(self.root)

    def look_back(self) -> None:
        """The labels that counted at every moment a run began."""
        for versions, model in self.moments:
            assert self._effective(versions) == model.effective()

    def read_everything(self) -> None:
        """Every voxel of every label that ever was."""
        versions = {key_of(version): version for version in SHIPPED}
        rows = self.writer.tables.labels(history=True)
        assert set(_keys(rows)) == {one.key for one in self.model.labels}
        for _, row in rows.iterrows():
            bits = self.writer.lake.open_bits(row, row["annotation"]).read()
            if row["annotation"] in self.masks:
                info = class_info(row["class_name"])
                expected = self.masks[row["annotation"]][1] == info.index
                np.testing.assert_array_equal(get_channel(bits, info.channel), expected)
            else:
                case = row["case_id"].removeprefix(case_name(""))
                np.testing.assert_array_equal(bits, bits_of(row["annotation"], case, versions[row["ingest_key"]]))

    @invariant()
    def what_counts_is_what_the_model_says(self) -> None:
        """The point of it all."""
        tables = self.writer.tables
        found = self._effective()
        assert found == self.model.effective()
        covered = queries.coverage(tables)
        for name in CLASSES:
            assert covered.loc[name].sum() == sum(key[3] == name for key in found)
        shown = tables.labels(columns=["class_name", "state"])
        human = {one.key for case in self.model.current() for one in self.model.of(case) if one.kind == "human"}
        assert set(_keys(shown[shown["state"] == "annotated"])) == human
        assert human <= found
        for trusted in queries.TRUSTED:
            assert set(_keys(queries.labels_to_learn(tables, trusted))) == self.model.learnt(trusted)
        every = ("accept", "review", "reject", "none")
        assert set(_keys(review_queue(tables, decisions=every))) == self.model.waiting()

    def _effective(self, at_versions: dict[str, int] | None = None) -> set[tuple[str, str, str, str]]:
        rows = list(_keys(queries.effective_labels(self.writer.tables, at_versions=at_versions)))
        assert len({(row[0], row[3]) for row in rows}) == len(rows), "a class counts twice in a case"
        return set(rows)


def _keys(rows: Any) -> Iterator[tuple[str, str, str, str]]:
    return rows[["case_id", "ingest_key", "annotation", "class_name"]].itertuples(index=False, name=None)  # type: ignore[no-any-return]
